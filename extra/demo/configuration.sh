# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
# The accounts, ports and configuration files of the demonstration; sourced by extra/quickstart.

make_accounts() {
    local shell=/usr/sbin/nologin
    [ -e "$shell" ] || shell=/sbin/nologin
    make_account "$SERVICE_ACCOUNT" --system --user-group --no-create-home --home-dir "$STATE" --shell "$shell"
    make_account "$DEMO_ACCOUNT" --create-home --user-group --shell /bin/bash
    echo "$SERVICE_ACCOUNT (runs the gateway, owns the images), $DEMO_ACCOUNT (an ordinary user)"
}

# choose_image: LOCAL (yes: made here) and SPEC, what users type; --image names a registry's image.
choose_image() {
    LOCAL=yes
    if [ -z "$IMAGE" ] && ! command -v mmdebstrap >/dev/null; then
        IMAGE=$PUBLIC_IMAGE
        echo "(no mmdebstrap here: pulling $IMAGE instead of making an image)"
    fi
    if [ -z "$IMAGE" ]; then
        SPEC=docker:$LOCAL_IMAGE
        return 0
    fi
    LOCAL=no
    local scheme=https name=$IMAGE host
    case $name in http://*) scheme=http name=${name#*://} ;; https://*) name=${name#*://} ;; esac
    host=${name%%/*}
    if [ "$host" = "$name" ]; then
        host=docker.io name=docker.io/library/$name
    elif ! [[ $host == *[.:]* || $host == localhost ]]; then
        host=docker.io name=docker.io/$name
    fi
    if [ "$host" != docker.io ]; then record location "$host=$scheme://$host"; fi
    SPEC=docker:$name
}

choose_ports() {
    GATEWAY_PORT=$(choose_port gateway 5000)
    REGISTRY_PORT=''
    if [ "$LOCAL" = yes ]; then REGISTRY_PORT=$(choose_port registry 5001); else REGISTRY_PORT=$(setting registry); fi
}

write_registry_configuration() {
    write_file "$STATE/registry.yml" root:root 0644 <<TEXT
version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $STATE/registry}}
http: {addr: "127.0.0.1:$REGISTRY_PORT", secret: "demonstration"}
TEXT
}

locations() {
    local line separator=''
    {
        echo "docker.io=https://registry-1.docker.io"
        if [ -n "$REGISTRY_PORT" ]; then echo "127.0.0.1:$REGISTRY_PORT=http://127.0.0.1:$REGISTRY_PORT"; fi
        recorded location
    } | awk -F= '!known[$1]++' | while read -r line; do
        printf '%s\n    "%s": {"remotetype": "dockerv2", "url": "%s"}' "$separator" "${line%%=*}" "${line#*=}"
        separator=,
    done
}

write_configuration() {
    local default=docker.io
    if [ -n "$REGISTRY_PORT" ]; then default=127.0.0.1:$REGISTRY_PORT; fi
    make_directory "$STATE/images" "$SERVICE_ACCOUNT" 0700
    make_directory "$STATE/gateway" "$SERVICE_ACCOUNT" 0700
    make_directory "$STATE/udiMount"
    make_directory "$STATE/loopMount"
    make_directory "$STATE/etc"
    write_udiroot_configuration
    write_gateway_configuration "$default"
    echo "$SYSCONFDIR/udiRoot.conf, $SYSCONFDIR/imagemanager.json"
}

write_udiroot_configuration() {
    write_file "$SYSCONFDIR/udiRoot.conf" root:root 0644 <<TEXT
# Written by extra/quickstart; $SYSCONFDIR/udiRoot.conf.example explains every key.
system=mycluster
imageGateway=http://127.0.0.1:$GATEWAY_PORT
imagePath=$STATE/images
imageOwner=$SERVICE_ACCOUNT
udiRootPath=$PREFIX
udiMount=$STATE/udiMount
loopMount=$STATE/loopMount
rootfsType=tmpfs
etcPath=$STATE/etc
populateEtcDynamically=1
maxGroupCount=31
defaultImageType=docker
siteFs=/home:/home
siteEnv=SHIFTER_RUNTIME=1
# end
TEXT
}

# A gateway that runs with another configuration is started again with this one.
write_gateway_configuration() {
    local file=$SYSCONFDIR/imagemanager.json before
    before=$(cat "$file" 2>/dev/null || true)
    write_file "$file" "root:$SERVICE_ACCOUNT" 0640 <<TEXT
{
  "Platforms": {
    "mycluster": {
      "accesstype": "local",
      "local": {"imageDir": "$STATE/images"},
      "mungeSocketPath": "$MUNGE_SOCKET",
      "admins": ["root"]
    }
  },
  "Locations": {$(locations)
  },
  "DefaultImageLocation": "$1",
  "DefaultImageFormat": "squashfs",
  "MongoDBURI": "sqlite://$STATE/gateway/images.sqlite",
  "CacheDirectory": "$STATE/gateway/cache",
  "ExpandDirectory": "$STATE/gateway/expand",
  "ImageExpirationTimeout": "90:00:00:00",
  "PullUpdateTimeout": 300
}
TEXT
    make_directory "$STATE/gateway/cache" "$SERVICE_ACCOUNT" 0700
    make_directory "$STATE/gateway/expand" "$SERVICE_ACCOUNT" 0700
    if [ "$before" != "$(cat "$file")" ]; then stop_service gateway; fi
}
