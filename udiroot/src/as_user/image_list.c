/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The argument lists of .meta files: what Python's repr made of a list of strings, without escapes (gateway contract,
 * section 9.3), and JSON strings (RFC 8259) for what that cannot say.
 */
#include <string.h>

#include "as_user/image.h"

enum {
    HIGH_SURROGATE = 0xd800,
    LOW_SURROGATE = 0xdc00,
    SURROGATE_END = 0xe000,
    RAW_BYTE = 0xdc80,
    RAW_BYTE_END = 0xdd00
};

struct cursor {
    const char *next;
    char *out; /* the item being built; never longer than its text */
    size_t used;
};

static void put_utf8(struct cursor *c, unsigned code)
{
    static const unsigned marks[] = {0, 0, 0xc0, 0xe0, 0xf0};
    unsigned length = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (unsigned i = length; i-- > 1; code >>= 6)
        c->out[c->used + i] = (char)(0x80 | (code & 0x3f));
    c->out[c->used] = (char)(length == 1 ? code : marks[length] | code);
    c->used += length;
}

/* Four hex digits, -1 when they are not there. */
static int take_hex(struct cursor *c)
{
    int code = 0;
    for (int i = 0; i < 4; i++, c->next++) {
        char digit = *c->next;
        int value = digit >= '0' && digit <= '9'   ? digit - '0'
                    : digit >= 'a' && digit <= 'f' ? digit - 'a' + 10
                    : digit >= 'A' && digit <= 'F' ? digit - 'A' + 10
                                                   : -1;
        if (value < 0)
            return -1;
        code = 16 * code + value;
    }
    return code;
}

/* After "\u". The gateway writes a byte that is no UTF-8 as the lone surrogate U+DC80 to U+DCFF (Python's PEP 383). */
static bool take_code(struct cursor *c)
{
    int code = take_hex(c);
    if (code <= 0)
        return false;
    if (code >= HIGH_SURROGATE && code < LOW_SURROGATE) {
        if (c->next[0] != '\\' || c->next[1] != 'u')
            return false;
        c->next += 2;
        int low = take_hex(c);
        if (low < LOW_SURROGATE || low >= SURROGATE_END)
            return false;
        code = 0x10000 + ((code - HIGH_SURROGATE) << 10) + (low - LOW_SURROGATE);
    } else if (code >= RAW_BYTE && code < RAW_BYTE_END) {
        c->out[c->used++] = (char)(code & 0xff);
        return true;
    } else if (code >= LOW_SURROGATE && code < SURROGATE_END) {
        return false;
    }
    put_utf8(c, (unsigned)code);
    return true;
}

static bool take_escape(struct cursor *c)
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    char name = *c->next;
    if (name == '\0')
        return false;
    c->next++;
    if (name == 'u')
        return take_code(c);
    const char *known = strchr(names, name);
    if (known == NULL)
        return false;
    c->out[c->used++] = values[known - names];
    return true;
}

/* An item in its quotes, the cursor on the first; false when it is damaged. */
static bool take_item(struct cursor *c)
{
    char quote = *c->next++;
    for (c->used = 0; *c->next != quote;) {
        char byte = *c->next++;
        if (byte == '\0')
            return false;
        if (byte == '\\' && quote == '"') {
            if (!take_escape(c))
                return false;
        } else {
            c->out[c->used++] = byte;
        }
    }
    c->next++;
    c->out[c->used] = '\0';
    return true;
}

static void skip_blanks(struct cursor *c)
{
    while (text_is_blank(*c->next))
        c->next++;
}

static bool at_item(const char *text)
{
    return *text == '\'' || *text == '"';
}

static bool take_list(struct cursor *c, struct strings *out)
{
    c->next++;
    skip_blanks(c);
    if (*c->next == ']')
        return c->next[1] == '\0';
    for (;;) {
        if (*c->next == 'u')
            c->next++;
        if (!at_item(c->next) || !take_item(c))
            return false;
        strings_add(out, c->out);
        skip_blanks(c);
        if (*c->next == ']')
            return c->next[1] == '\0';
        if (*c->next++ != ',')
            return false;
        skip_blanks(c);
    }
}

/* Starts a list, empty or not; other texts with a bracket are one word, such as the program called "[". */
static bool is_list(const char *text)
{
    if (*text++ != '[')
        return false;
    while (text_is_blank(*text))
        text++;
    return *text == ']' || at_item(text) || (*text == 'u' && at_item(text + 1));
}

int image_list_parse(const char *text, struct strings *out, struct error *e)
{
    if (!is_list(text)) {
        if (*text != '\0')
            strings_add(out, text);
        return 0;
    }
    CLEANUP_FREE char *item = text_alloc(strlen(text) + 1);
    struct strings items = {0};
    struct cursor cursor = {.next = text, .out = item};
    bool good = take_list(&cursor, &items);
    for (size_t i = 0; i < items.count && good; i++)
        strings_add(out, items.items[i]);
    strings_free(&items);
    return good ? 0 : error_set(e, 0, "the list %.200s is damaged", text);
}
