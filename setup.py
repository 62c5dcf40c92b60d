# SPDX-License-Identifier: BSD-3-Clause
"""Builds the two C extensions; everything declarative is in pyproject.toml."""

from pathlib import Path

from setuptools import Extension, setup

WARNINGS = ["-std=c11", "-Wall", "-Wextra", "-Wshadow"]

EXTENSIONS = [
    Extension(
        "udiroot._core",
        sources=["udiroot/src/_core.c", *(f"udiroot/src/{name}.c" for name in ("config",))],
        extra_compile_args=WARNINGS,
    ),
]

# An extension whose sources are not there yet is left out, so that every commit builds.
setup(ext_modules=[e for e in EXTENSIONS if all(Path(source).exists() for source in e.sources)])
