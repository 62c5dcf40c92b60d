# SPDX-License-Identifier: BSD-3-Clause
"""Builds the C extensions; everything declarative is in pyproject.toml."""

from __future__ import annotations

from pathlib import Path

from setuptools import Extension, setup

FLAGS = ["-std=c11", "-Wall", "-Wextra", "-Wshadow", "-D_GNU_SOURCE"]
ROOT = Path(__file__).parent


def sources(*patterns: str) -> list[str]:
    """The C files that match, in a fixed order, relative to this file as setuptools wants them."""
    return sorted(str(path.relative_to(ROOT)) for pattern in patterns for path in ROOT.glob(pattern))


# The launcher's own parsers, so that tests and clients read what it reads.
PARSERS = (
    *("python/*", "base/*", "as_root/trust", "as_root/kernel", "as_user/lines", "as_user/volumes*", "as_user/environ"),
    *("as_user/options", "as_user/config*", "as_user/modules", "as_user/image_*"),
)

EXTENSIONS = [
    Extension(
        "udiroot._core",
        sources=sources(*(f"udiroot/src/{name}.c" for name in PARSERS)),
        depends=sources("udiroot/src/*/*.h"),
        include_dirs=["udiroot/src"],
        extra_compile_args=FLAGS,
    ),
    Extension(
        "shifter_imagegw.squashfs._writer",
        sources=sources("shifter_imagegw/squashfs/writer/*.c"),
        depends=sources("shifter_imagegw/squashfs/writer/*.h", "shifter_imagegw/squashfs/*.h"),
        libraries=["squashfs", "archive", "isal", "zstd", "crypto"],
        extra_compile_args=[*FLAGS, "-O2"],
    ),
    Extension(
        "shifter_imagegw.squashfs._merger",
        sources=sources("shifter_imagegw/squashfs/merger/*.c"),
        depends=sources("shifter_imagegw/squashfs/merger/*.h", "shifter_imagegw/squashfs/*.h"),
        libraries=["squashfs"],
        extra_compile_args=[*FLAGS, "-O2"],
    ),
]

# An extension whose sources are not there yet is left out, so that every commit builds.
setup(ext_modules=[extension for extension in EXTENSIONS if len(extension.sources) > 1])
