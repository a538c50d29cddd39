"""The shapes in which the gateway is tested, and how each one is launched: this is the only place that knows.

  host    the native binary: target/release/witgate serve --config FILE
  wasi    the component that is composed as for Spin, in wasmtime's own wasi:http handler (a small runner of this repository)
  spin    the repository's spin.toml under `spin up`; only where `spin` is on PATH, or WITGATE_SPIN names it
  direct  no gateway: straight at llama-server, to see whether what the suite expects of it is right

WITGATE_E2E_SHAPES chooses, as `host,wasi`.
"""

import os
import pathlib
import shutil
import tomllib

import kit

DEFAULT = "host,wasi,spin"

BINARY = pathlib.Path(os.environ.get("WITGATE") or kit.ROOT / "target/release/witgate")
RUNNER = pathlib.Path(os.environ.get("WITGATE_WASI_SERVE") or kit.ROOT / "target/release/witgate-wasi-serve")
COMPOSED = pathlib.Path(os.environ.get("WITGATE_COMPOSED") or kit.ROOT / "target/components/witgate.wasm")
SPIN = os.environ.get("WITGATE_SPIN") or shutil.which("spin")
SPIN_TOML = pathlib.Path(os.environ.get("WITGATE_SPIN_TOML") or kit.ROOT / "spin.toml")


def chosen():
    """The shapes asked for, each a known one."""
    names = [n.strip() for n in os.environ.get("WITGATE_E2E_SHAPES", DEFAULT).split(",") if n.strip()]
    if unknown := set(names) - {"host", "wasi", "spin", "direct"}:
        raise SystemExit(f"WITGATE_E2E_SHAPES names {sorted(unknown)}; there are host, wasi, spin, direct")
    return names


def missing(name):
    """What this shape lacks on this machine; None where it can run."""
    if name == "host" and not BINARY.exists():
        return f"{BINARY} is not built"
    if name == "wasi":
        return next((f"{path} is not built" for path in (RUNNER, COMPOSED) if not path.exists()), None)
    if name == "spin" and not SPIN:
        return "`spin` is not on PATH, and WITGATE_SPIN names none"
    return None


def environment(more=None):
    """What a gateway inherits: nothing that would change its configuration."""
    kept = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "TMPDIR", "LANG", "XDG_CACHE_HOME")}
    return kept | {"NO_COLOR": "1"} | (more or {})


def launch(shape, config, port, folder, name, variables=None, arguments=()):
    """Starts a gateway that listens on the port, with this configuration (a path). Gives its process.

    `config` None: no file. `variables` are the environment of the native binary, and the component's variables.
    """
    listen = f"127.0.0.1:{port}"
    variables = variables or {}
    if shape == "host":
        command = [BINARY, "serve", *(["--config", config] if config else ["--listen", listen]), *arguments]
        # In a folder without a witgate.toml.
        return kit.Process(command, folder, name, environment(variables), cwd=folder)
    if shape == "wasi":
        # What each test starts is one and the same component: compiled once.
        cache = pathlib.Path(os.environ.get("WITGATE_CACHE") or kit.ROOT / ".cache") / "wasi"
        command = [RUNNER, COMPOSED, "--cache", cache.resolve(), "--listen", listen, *(["--config", config] if config else [])]
        command += [f"--var={key.lower()}={value}" for key, value in variables.items()]
        return kit.Process(command, folder, name, environment())
    if shape == "spin":
        manifest = spin_manifest(config, folder, name)
        command = [SPIN, "up", "--from", manifest, "--listen", listen, "--state-dir", f"{folder}/{name}.state"]
        command += [f"--variable={key.lower()}={value}" for key, value in variables.items()]
        return kit.Process(command, folder, name, environment())
    raise ValueError(shape)


def spin_manifest(config, folder, name):
    """The repository's spin.toml with this configuration mounted, and with leave to reach the test's backends."""
    manifest = tomllib.loads(SPIN_TOML.read_text())
    gateway = manifest["component"]["gateway"]
    gateway["files"] = []
    if config:
        mounted = pathlib.Path(folder) / f"{name}.files"
        mounted.mkdir(exist_ok=True)
        shutil.copy(config, mounted / "witgate.toml")
        gateway["files"] = [{"source": str(mounted), "destination": "/"}]
    gateway["allowed_outbound_hosts"] = ["http://127.0.0.1:*", "http://localhost:*"]

    def absolute(table, key):
        if isinstance(table.get(key), str):
            table[key] = str((SPIN_TOML.parent / table[key]).resolve())

    for component in manifest["component"].values():
        component.pop("build", None)
        absolute(component, "source")
        for dependency in component.get("dependencies", {}).values():
            if isinstance(dependency, dict):
                absolute(dependency, "path")
    path = pathlib.Path(folder) / f"{name}.spin.toml"
    path.write_text(kit.toml(manifest))
    return path
