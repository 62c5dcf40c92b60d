# SPDX-License-Identifier: BSD-3-Clause
"""imagemanager.json: what loads, and what is said about what does not."""

from __future__ import annotations

import copy
import json
import os
import socket
from collections.abc import Set
from pathlib import Path
from typing import Any

import pytest

from shifter_imagegw.config import Configuration, load_configuration, parse_configuration, problems
from shifter_imagegw.errors import ConfigurationError
from shifter_imagegw.layers.eviction import CacheLimits
from shifter_imagegw.layers.recipe import Limits, Recipe

ROOT = Path(__file__).parents[2]

# The documented example of the contract: one local and one remote platform, two registries.
DOCUMENTED: dict[str, Any] = {
    "Platforms": {
        "aurora": {
            "accesstype": "local",
            "local": {"imageDir": "/shared/shifter/images"},
            "mungeSocketPath": "/run/munge/aurora.socket",
            "use_external": True,
            "admins": ["root", "shifteradm"],
        },
        "borealis": {
            "accesstype": "remote",
            "host": ["login1.borealis"],
            "ssh": {
                "imageDir": "/lustre/shifter",
                "username": "shifter",
                "key": "/etc/shifter/id_borealis",
                "sshCmdOptions": ["-o", "BatchMode=yes"],
                "scpCmdOptions": ["-o", "BatchMode=yes"],
            },
            "mungeSocketPath": "/run/munge/borealis.socket",
            "admins": ["root"],
        },
    },
    "Locations": {
        "docker.io": {"remotetype": "dockerv2", "url": "https://registry-1.docker.io"},
        "lab.example.org": {"remotetype": "dockerv2", "sslcacert": "/etc/pki/lab-ca.pem"},
    },
    "DefaultImageLocation": "docker.io",
    "DefaultImageFormat": "squashfs",
    "CacheDirectory": "/var/cache/shifter/layers",
    "ExpandDirectory": "/var/tmp/shifter/expand",
    "MongoDB": "Shifter",
    "MongoDBURI": "mongodb://db.example.org/",
    "ImageExpirationTimeout": "90:00:00:00",
    "PullUpdateTimeout": 300,
    "WorkerThreads": 4,
    "Metrics": True,
}

# The kind of file the old packages installed, with the keys that never had an effect.
PUBLISHED: dict[str, Any] = {
    "WorkerThreads": 8,
    "LogLevel": "DEBUG",
    "DefaultImageLocation": "registry-1.docker.io",
    "DefaultImageFormat": "squashfs",
    "DefaultOstCount": 16,
    "DefaultLustreReplication": 1,
    "Broker": "redis://localhost/",
    "PullUpdateTime": 60,
    "ImageExpirationTimeout": "90:00:00:00",
    "MongoDBURI": "mongodb://localhost/",
    "MongoDB": "Shifter",
    "CacheDirectory": "/images/cache/",
    "ExpandDirectory": "/images/expand/",
    "ConverterOptions": {"squashfs": []},
    "Locations": {"registry-1.docker.io": {"remotetype": "dockerv2", "authentication": "http"}},
    "Platforms": {
        "mycluster": {
            "mungeSocketPath": "/var/run/munge/munge.socket.2",
            "accesstype": "local",
            "usergroupService": "local",
            "mountCommand": "unused",
            "admins": "root",
            "local": {"imageDir": "/images"},
        }
    },
}


def parse(document: Any, **environment: str) -> Configuration:
    return parse_configuration(json.dumps(document).encode(), Path("imagemanager.json"), environment)


def changed(path: str, value: Any) -> dict[str, Any]:
    """The documented example with one value replaced; ``...`` removes it."""
    document = copy.deepcopy(DOCUMENTED)
    *parents, key = path.split("/")
    place: Any = document
    for parent in parents:
        place = place[parent]
    if value is ...:
        del place[key]
    else:
        place[key] = value
    return document


def test_the_documented_example_is_read_completely() -> None:
    configuration = parse(DOCUMENTED)
    aurora, borealis = configuration.platforms["aurora"], configuration.platforms["borealis"]
    assert aurora.image_directory == Path("/shared/shifter/images")
    assert aurora.admins == {"root", "shifteradm"}
    assert aurora.ssh is None
    assert borealis.ssh is not None
    assert (borealis.ssh.host, borealis.ssh.username) == ("login1.borealis", "shifter")
    assert borealis.ssh.ssh_options == ("-o", "BatchMode=yes")
    assert configuration.locations["lab.example.org"].url == "https://lab.example.org"
    assert configuration.image_expiration == 90 * 86400
    assert (configuration.worker_threads, configuration.metrics, configuration.database) == (4, True, "Shifter")
    assert configuration.unused == ("Platforms.aurora.use_external",)


def test_a_file_of_the_old_packages_loads_unchanged() -> None:
    configuration = parse(PUBLISHED)
    assert configuration.pull_update_timeout == 60
    assert configuration.platforms["mycluster"].admins == {"root"}
    assert configuration.log_level == "debug"
    assert configuration.converter_options == {"squashfs": ()}
    assert "Broker" in configuration.unused


def test_the_example_we_install_loads() -> None:
    content = (ROOT / "imagemanager.json.example").read_bytes()
    assert parse_configuration(content, Path("x"), {}).store_uri.startswith("sqlite:///")


def test_pull_update_timeout_needs_no_second_key_and_wins_over_its_alias() -> None:
    assert parse(changed("PullUpdateTimeout", 17)).pull_update_timeout == 17
    assert parse({**DOCUMENTED, "PullUpdateTimeout": 17, "PullUpdateTime": 5}).pull_update_timeout == 17
    assert parse(changed("PullUpdateTimeout", ...)).pull_update_timeout == 300


def test_a_missing_expiration_is_ninety_days() -> None:
    assert parse(changed("ImageExpirationTimeout", ...)).image_expiration == 90 * 86400
    assert parse(changed("ImageExpirationTimeout", "1:02:03:04")).image_expiration == 86400 + 2 * 3600 + 3 * 60 + 4


def test_sqlite_needs_no_database_name() -> None:
    document = changed("MongoDB", ...)
    document["MongoDBURI"] = "sqlite:///var/lib/shifter/images.sqlite"
    assert parse(document).store_uri == "sqlite:///var/lib/shifter/images.sqlite"


def test_http_settings_are_typed_too() -> None:
    configuration = parse({**DOCUMENTED, "http": {"readTimeout": 5, "retries": 1}})
    assert (configuration.http.read_timeout, configuration.http.retries) == (5.0, 1)


def recipes(top: Any, **platforms: Any) -> dict[str, Recipe]:
    document = copy.deepcopy({**DOCUMENTED, "recipe": top})
    for name, recipe in platforms.items():
        document["Platforms"][name]["recipe"] = recipe
    return {name: platform.recipe for name, platform in parse(document).platforms.items()}


def test_recipes_of_the_platforms() -> None:
    assert {platform.recipe for platform in parse(DOCUMENTED).platforms.values()} == {Recipe()}
    found = recipes({"level": 9, "keepOwners": True}, borealis={"blockSize": 1 << 20, "bootSet": False})
    assert found["aurora"] == Recipe(level=9, keep_owners=True)
    assert found["borealis"] == Recipe(level=9, keep_owners=True, block_size=1 << 20, boot_set=False)
    everything = {"keepOwners": True, "keepSetid": True, "keepUserXattrs": True}
    assert recipes(everything)["aurora"] == Recipe(keep_owners=True, keep_setid=True, keep_user_xattrs=True)


@pytest.mark.parametrize(("compressor", "level"), [("gzip", 6), ("lz4", 0), ("xz", 6)])
def test_a_level_goes_with_its_compressor(compressor: str, level: int) -> None:
    found = recipes({"level": 19}, borealis={"compressor": compressor})
    assert (found["aurora"].compressor, found["aurora"].level) == ("zstd", 19)
    assert (found["borealis"].compressor, found["borealis"].level) == (compressor, level)
    assert recipes({}, borealis={"compressor": "gzip", "level": 9})["borealis"].level == 9


def test_limits_are_those_of_the_engine() -> None:
    assert parse(DOCUMENTED).limits == Limits()
    assert parse(DOCUMENTED).cache == CacheLimits(max_bytes=200 << 30, min_free_percent=10, max_idle=0)
    assert parse({**DOCUMENTED, "cache": {"maxIdle": 60}}).cache == CacheLimits(max_idle=60)
    assert parse({**DOCUMENTED, "limits": {"maxBytes": 5, "maxDepth": 7}}).limits == Limits(max_bytes=5, max_depth=7)


@pytest.mark.parametrize("text", ["3.10.0-1160.el7.x86_64", "3.10", "3.10.0"])
def test_a_declared_kernel(text: str) -> None:
    kernel = parse(changed("Platforms/aurora/kernel", text)).platforms["aurora"].kernel
    assert (kernel, str(kernel)) == ((3, 10, 0), "3.10")
    assert str(parse(changed("Platforms/aurora/kernel", "2.6.32")).platforms["aurora"].kernel) == "2.6.32"
    assert parse(DOCUMENTED).platforms["aurora"].kernel is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [("arm64", "linux/arm64"), ("linux/arm/v7", "linux/arm/v7"), ("linux/amd64", "linux/amd64")],
)
def test_architecture_of_a_platform(text: str, expected: str) -> None:
    configuration = parse(changed("Platforms/aurora/architecture", text))
    assert str(configuration.platforms["aurora"].architecture) == expected


@pytest.mark.parametrize(
    ("users", "names", "everybody"),
    [("all", set(), True), ("none", set(), False), ([], set(), False), (["alice"], {"alice"}, False)],
)
def test_import_users(users: Any, names: Set[str], everybody: bool) -> None:
    configuration = parse({**DOCUMENTED, "ImportUsers": users})
    assert (configuration.import_users, configuration.import_by_all) == (names, everybody)


def test_switches_of_the_environment() -> None:
    configuration = parse(DOCUMENTED, ENABLE_LABELS="1", DISABLE_ACL_METADATA="")
    assert (configuration.labels, configuration.acl_metadata) == (True, False)
    assert (parse(DOCUMENTED).labels, parse(DOCUMENTED).acl_metadata) == (False, True)


def test_mock_authentication_needs_the_switch_of_the_tests() -> None:
    document = {**DOCUMENTED, "Authentication": "mock"}
    assert parse(document, SHIFTER_TEST_MOCK_AUTHENTICATION="1").authentication == "mock"
    with pytest.raises(ConfigurationError, match="for tests only"):
        parse(document)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("PullUpdateTimeot", 5, r"PullUpdateTimeot: unknown key; did you mean 'PullUpdateTimeout'\?"),
        ("Platforms/aurora/admin", ["x"], r"Platforms\.aurora\.admin: unknown key; did you mean 'admins'\?"),
        ("Platforms/aurora/local/imagedir", "/x", r"Platforms\.aurora\.local\.imagedir: .*'imageDir'"),
        ("Locations/docker.io/ssl", "/x", r"Locations\.docker\.io\.ssl: unknown key"),
        ("http", {"readTimeOut": 3}, r"http\.readTimeOut: unknown key; did you mean 'readTimeout'\?"),
        ("http", {"retries": "3"}, r"http\.retries: expected a number, got text"),
        ("http", {"retries": -3}, r"http\.retries: -3 is negative"),
        ("recipe", {"compresor": "gzip"}, r"recipe\.compresor: unknown key; did you mean 'compressor'\?"),
        ("recipe", {"compressor": "lzo"}, r"recipe\.compressor: 'lzo' is not one of zstd, gzip, xz, lz4"),
        ("recipe", {"level": 23}, r"recipe: level 23 of zstd is not within 1 to 22"),
        ("recipe", {"compressor": "lz4", "level": 1}, r"recipe: level 1: lz4 has no levels, only 0"),
        ("recipe", {"blockSize": 100_000}, r"recipe: block size 100000 is not a power of two within 4096 to 1048576"),
        ("recipe", {"blockSize": 2 << 20}, r"recipe: block size 2097152 is not a power of two"),
        ("recipe", {"keepSetid": True}, r"recipe: keepSetid without keepOwners would turn every setuid program"),
        ("Platforms/aurora/recipe", {"keepSetid": True}, r"Platforms\.aurora\.recipe: keepSetid without keepOwners"),
        ("Platforms/aurora/recipe", {"block_size": 1}, r"aurora\.recipe\.block_size: .*did you mean 'blockSize'\?"),
        ("Platforms/aurora/kernel", 4.18, r"Platforms\.aurora\.kernel: expected text, got a fraction"),
        ("Platforms/aurora/kernel", "RHEL 8", r"Platforms\.aurora\.kernel: 'RHEL 8': expected a version, e\.g\. 4\.18"),
        ("limits", {"maxRation": 3}, r"limits\.maxRation: unknown key; did you mean 'maxRatio'\?"),
        ("limits", {"maxRatio": 0}, r"limits: maxRatio is 0, not within 1 to"),
        ("cache", {"maxbytes": 5}, r"cache\.maxbytes: unknown key; did you mean 'maxBytes'\?"),
        ("cache", {"maxBytes": 200}, r"cache: maxBytes is 200, less than a megabyte: no layer would be kept"),
        ("cache", {"maxBytes": "200G"}, r"cache\.maxBytes: expected a number, got text"),
        ("cache", {"minFreePercent": 100}, r"cache: minFreePercent is 100, not within 0 to 99"),
        ("cache", {"maxIdle": -1}, r"cache\.maxIdle: -1 is negative"),
        ("limits", {"maxPath": 5000}, r"limits: maxPath is 5000, not within 1 to 4096"),
        ("limits", {"maxBytes": 1e9}, r"limits\.maxBytes: expected a number, got a fraction"),
        ("Platforms", ..., "Platforms: is missing"),
        ("Platforms", {}, "Platforms: names no system"),
        ("Platforms", [], "Platforms: expected an object, got a list"),
        ("Platforms/aurora", 5, r"Platforms\.aurora: expected an object, got a number"),
        ("Platforms/aurora/accesstype", "nfs", r"Platforms\.aurora\.accesstype: 'nfs' is not one of local, remote"),
        ("Platforms/aurora/local", ..., r"Platforms\.aurora\.local: is missing"),
        ("Platforms/aurora/local/imageDir", "images", "'images' is not an absolute path"),
        ("Platforms/aurora/mungeSocketPath", ..., r"Platforms\.aurora\.mungeSocketPath: is missing"),
        ("Platforms/aurora/admins", [5], r"Platforms\.aurora\.admins: expected a list of texts, found a number"),
        ("Platforms/aurora/architecture", "x86 64", r"architecture: 'x86 64': expected e\.g\. amd64"),
        ("Platforms/borealis/host", [], r"Platforms\.borealis\.host: is empty"),
        ("Platforms/borealis/ssh/username", ..., r"Platforms\.borealis\.ssh\.username: is missing"),
        ("Locations/docker.io/remotetype", "dockerhub", r"remotetype: 'dockerhub' is not one of dockerv2"),
        ("Locations/docker.io/url", "ftp://x", r"Locations\.docker\.io: .*not a registry URL"),
        ("Locations/docker.io/authMethod", "digest", r"authMethod: 'digest' is not one of token, basic"),
        ("DefaultImageLocation", "dockre.io", r"'dockre\.io' is not one of .*; did you mean 'docker\.io'\?"),
        ("MongoDB", ..., "MongoDB: is missing"),
        ("MongoDBURI", "postgres://x", r"MongoDBURI: expected mongodb://HOST/ or sqlite:///"),
        ("WorkerThreads", 0, "WorkerThreads: 0 is too small: at least 1"),
        ("pullTimeout", 0, "pullTimeout: 0 is too small: at least 1"),
        ("WorkerThreads", "4", "WorkerThreads: expected a number, got text"),
        ("WorkerThreads", True, "WorkerThreads: expected a number, got true or false"),
        ("Metrics", "yes", "Metrics: expected true or false, got text"),
        ("LogLevel", "loud", "LogLevel: 'loud' is not one of debug"),
        ("Authentication", "none", "Authentication: 'none' is not one of munge, mock"),
        ("ImageExpirationTimeout", "90", "ImageExpirationTimeout: '90': expected DD:HH:MM:SS"),
        ("ImportUsers", "alice,bob", "ImportUsers: 'alice,bob': expected"),
        ("CacheDirectory", "", "CacheDirectory: is empty"),
        ("CacheDirectory", "/a\nb", "CacheDirectory: is empty or holds control characters"),
    ],
)
def test_mistakes_are_named_with_their_key(path: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse(changed(path, value))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{\n  'x': 1\n}", "line 2, column 3: not JSON"),
        (b"\xff\xfe", "not UTF-8 at byte 0"),
        (b"[]", "expected an object, got a list"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"Metrics": true, "Metrics": false}', "key 'Metrics' appears twice"),
        (b"", "line 1, column 1: not JSON"),
    ],
)
def test_what_is_not_a_json_object_is_located(content: bytes, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse_configuration(content, Path("imagemanager.json"), {})


class TestFile:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        path = tmp_path / "imagemanager.json"
        path.write_text(json.dumps(DOCUMENTED))
        path.chmod(0o644)
        return path

    def test_loads(self, file: Path) -> None:
        assert load_configuration(file, {}).source == file

    def test_writable_by_others_is_refused(self, file: Path) -> None:
        file.chmod(0o664)
        with pytest.raises(ConfigurationError, match=rf"writable by group or others \(mode 0664\): chmod go-w {file}"):
            load_configuration(file, {})

    def test_of_a_stranger_is_refused(self, file: Path) -> None:
        os.chown(file, 12345, -1)
        with pytest.raises(ConfigurationError, match="belongs to uid 12345"):
            load_configuration(file, {})

    def test_missing_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match=f"{tmp_path}/none: cannot be read: No such file"):
            load_configuration(tmp_path / "none", {})

    def test_directories_and_pipes_are_refused_at_once(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        for path in (tmp_path, tmp_path / "pipe"):
            with pytest.raises(ConfigurationError, match=r"not a regular file|Is a directory"):
                load_configuration(path, {})


class TestProblems:
    def document(self, tmp_path: Path) -> dict[str, Any]:
        for name in ("images", "cache", "expand"):
            (tmp_path / name).mkdir(mode=0o700)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(tmp_path / "munge.socket"))
        document = copy.deepcopy(DOCUMENTED)
        del document["Platforms"]["borealis"]
        del document["Locations"]["lab.example.org"]
        document["Platforms"]["aurora"].update(
            local={"imageDir": str(tmp_path / "images")}, mungeSocketPath=str(tmp_path / "munge.socket")
        )
        document.update(
            CacheDirectory=str(tmp_path / "cache"),
            ExpandDirectory=str(tmp_path / "expand"),
            MongoDBURI=f"sqlite://{tmp_path}/images.sqlite",
        )
        return document

    def errors(self, document: dict[str, Any]) -> list[str]:
        found = [str(problem) for problem in problems(parse(document)) if problem.severity == "error"]
        self.socket.close()
        return found

    def test_a_sound_site_has_no_errors(self, tmp_path: Path) -> None:
        assert self.errors(self.document(tmp_path)) == []
        assert not (tmp_path / "images.sqlite").exists()

    @pytest.mark.parametrize(
        ("kernel", "recipe", "message"),
        [
            ("4.13.16", {}, "Linux 4.13.16 cannot read images compressed with zstd, which takes 4.14 or later"),
            ("3.10.0-1160.el7", {}, "Linux 3.10 cannot read images compressed with zstd"),
            ("3.10", {"compressor": "lz4"}, "Linux 3.10 cannot read images compressed with lz4, which takes 3.19"),
            ("2.6.32", {"compressor": "xz"}, "Linux 2.6.32 cannot read images compressed with xz, which takes 2.6.38"),
            ("2.6.32", {"compressor": "gzip"}, None),
            ("2.6.38", {"compressor": "xz"}, None),
            ("4.14", {}, None),
            ("6.1.0-31-amd64", {}, None),
        ],
    )
    def test_a_kernel_that_cannot_read_the_compressor(
        self, tmp_path: Path, kernel: str, recipe: dict[str, Any], message: str | None
    ) -> None:
        document = self.document(tmp_path)
        document["recipe"] = recipe
        document["Platforms"]["aurora"]["kernel"] = kernel
        found = self.errors(document)
        if message is None:
            assert found == []
        else:
            assert found[0].startswith(f"error: Platforms.aurora.kernel: {message}")
            assert found[0].endswith("; set Platforms.aurora.recipe.compressor to gzip")

    def test_everything_that_is_wrong_on_this_host_is_listed_at_once(self, tmp_path: Path) -> None:
        document = self.document(tmp_path)
        (tmp_path / "images").rmdir()
        (tmp_path / "munge.socket").unlink()
        (tmp_path / "cache").chmod(0o777)
        document["examiner"] = "/usr/local/bin/examine"
        document["DefaultImageFormat"] = "ext4"
        document["MongoDBURI"] = f"sqlite://{tmp_path}/none/images.sqlite"
        document["Platforms"]["borealis"] = {**DOCUMENTED["Platforms"]["borealis"]}
        document["Locations"]["lab.example.org"] = {"remotetype": "dockerv2", "sslcacert": "/no/ca.pem"}
        text = "\n".join(self.errors(document))
        for expected in (
            "DefaultImageFormat: 'ext4' cannot be made",
            "examiner: comes with a later release",
            "Platforms.aurora.local.imageDir: ",
            "Platforms.aurora.mungeSocketPath: ",
            "Platforms.borealis.accesstype: 'remote' is not supported yet",
            "CacheDirectory: ",
            "MongoDBURI: ",
            "Locations.lab.example.org.sslcacert: /no/ca.pem: cannot be read",
        ):
            assert f"error: {expected}" in text

    def test_image_directories_that_are_something_else_as_well(self, tmp_path: Path) -> None:
        document = self.document(tmp_path)
        first = document["Platforms"]["aurora"]
        document["Platforms"]["twin"] = copy.deepcopy(first)
        document["Platforms"]["arm"] = {**copy.deepcopy(first), "architecture": "arm64"}
        document["Platforms"]["old"] = {**copy.deepcopy(first), "recipe": {"compressor": "gzip"}}
        document["CacheDirectory"] = first["local"]["imageDir"] + "/../images"
        found = "\n".join(str(problem) for problem in problems(parse(document)))
        self.socket.close()
        for expected in (
            "error: Platforms.aurora.local.imageDir: is CacheDirectory as well",
            "warning: Platforms.twin.local.imageDir: is that of aurora as well; nodes of both get the access lists",
            "error: Platforms.arm.local.imageDir: is that of aurora, which has another architecture",
            "error: Platforms.old.local.imageDir: is that of aurora, which has another recipe; use one for each",
        ):
            assert expected in found
