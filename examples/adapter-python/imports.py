#!/usr/bin/env python3
"""Print what a component imports, one name a line; fail where that is more than the adapter contract allows.

    imports.py FILE.wasm

Reads the component's own import sections (Component Model, Binary.md) and nothing else: components nested in it get
their imports from it.
"""
import sys

ALLOWED = ("witgate:adapter/types@",)


def imports(data):
    if data[:8] != b"\0asm\x0d\0\1\0":
        raise SystemExit("not a component")

    def number(at):
        value = shift = 0
        while True:
            value, at, more = value | (data[at] & 0x7F) << shift, at + 1, data[at] & 0x80
            shift += 7
            if not more:
                return value, at

    at, names = 8, []
    while at < len(data):
        section = data[at]
        size, at = number(at + 1)
        end = at + size
        if section == 10:
            count, at = number(at)
            for _ in range(count):
                length, at = number(at + 1)
                names.append(data[at : at + length].decode())
                at += length
                kind, at = data[at], at + 1
                # A core module's kind has a second byte; a type that is a fresh resource has no index.
                if kind == 0:
                    at += 1
                if kind in (2, 3):
                    bound, at = data[at], at + 1
                    if kind == 3 and bound == 1:
                        continue
                _, at = number(at)
            if at != end:
                raise SystemExit("an import section that this script can't read")
        at = end
    return names


names = imports(open(sys.argv[1], "rb").read())
print("\n".join(names) or "(imports nothing)")
forbidden = [name for name in names if not name.startswith(ALLOWED)]
if forbidden:
    sys.exit("an adapter may not import " + ", ".join(forbidden))
