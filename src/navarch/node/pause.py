"""The pause image: what holds a pod's namespaces open, made here so that no registry and no compiler is needed.

Its only program blocks SIGCHLD, SIGINT and SIGTERM and waits for them: a child's end is reaped (with a shared process
namespace it is the pod's init), the other two end it. The program is assembled from a few instructions for x86-64 and
arm64 into a static ELF file; the image is an OCI archive for both.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

from navarch.node.images.archives import LayerFile, Platform, write_image

PAUSE_IMAGE: Final = "navarch.local/pause:1"

_LOAD_ADDRESS: Final = 0x400000
_HEADERS_SIZE: Final = 64 + 56
_SIGINT, _SIGTERM, _SIGCHLD = 2, 15, 17
_MASK: Final = struct.pack("<Q", 1 << (_SIGINT - 1) | 1 << (_SIGTERM - 1) | 1 << (_SIGCHLD - 1))


class _Code:
    """Instructions with labels: `fixups` are patched once every label's place is known."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.labels: dict[str, int] = {}
        self.fixups: list[tuple[int, str, str]] = []

    def label(self, name: str) -> None:
        self.labels[name] = len(self.data)


class _X86(_Code):
    def raw(self, text: str) -> None:
        self.data += bytes.fromhex(text)

    def load_mask_address(self, opcode: str) -> None:
        """`lea reg, [rip + mask]`, by its opcode bytes."""
        self.raw(opcode)
        self.fixups.append((len(self.data), "mask", "rel32"))
        self.data += bytes(4)

    def jump(self, opcode: str, label: str) -> None:
        self.raw(opcode)
        self.fixups.append((len(self.data), label, "rel8"))
        self.data += bytes(1)

    def link(self) -> bytes:
        for place, label, kind in self.fixups:
            size = 4 if kind == "rel32" else 1
            offset = self.labels[label] - (place + size)
            self.data[place : place + size] = struct.pack("<i" if size == 4 else "<b", offset)
        return bytes(self.data)


def _x86_64() -> bytes:
    code = _X86()
    code.raw("31ff")  # xor edi, edi          SIG_BLOCK
    code.load_mask_address("488d35")  # lea rsi, [mask]
    code.raw("31d2 41ba08000000")  # xor edx, edx; mov r10d, 8
    code.raw("b80e000000 0f05")  # mov eax, 14; syscall  rt_sigprocmask
    code.label("wait")
    code.load_mask_address("488d3d")  # lea rdi, [mask]
    code.raw("31f6 31d2 41ba08000000")  # no siginfo, no timeout, 8 bytes of mask
    code.raw("b880000000 0f05")  # mov eax, 128; syscall rt_sigtimedwait
    code.raw("83f811")  # cmp eax, SIGCHLD
    code.jump("74", "reap")
    code.raw("83f802")  # cmp eax, SIGINT
    code.jump("74", "exit")
    code.raw("83f80f")  # cmp eax, SIGTERM
    code.jump("74", "exit")
    code.jump("eb", "wait")
    code.label("reap")
    code.raw("48c7c7ffffffff 31f6")  # mov rdi, -1; xor esi, esi
    code.raw("ba01000000 4531d2")  # mov edx, WNOHANG; xor r10d, r10d
    code.raw("b83d000000 0f05")  # mov eax, 61; syscall  wait4
    code.raw("85c0")  # test eax, eax
    code.jump("7f", "reap")
    code.jump("eb", "wait")
    code.label("exit")
    code.raw("31ff b8e7000000 0f05")  # xor edi, edi; mov eax, 231; syscall  exit_group
    code.label("mask")
    code.data += _MASK
    return code.link()


class _Arm64(_Code):
    def word(self, value: int) -> None:
        self.data += struct.pack("<I", value)

    def set(self, register: int, value: int) -> None:
        """`movz xN, #value`, or `movn xN, #0` for -1."""
        self.word(0x92800000 | register if value == -1 else 0xD2800000 | value << 5 | register)

    def call(self, number: int) -> None:
        self.set(8, number)
        self.word(0xD4000001)

    def compare(self, value: int) -> None:
        """`cmp x0, #value`"""
        self.word(0xF100001F | value << 10)

    def refer(self, base: int, label: str, kind: str) -> None:
        self.fixups.append((len(self.data), label, kind))
        self.word(base)

    def link(self) -> bytes:
        for place, label, kind in self.fixups:
            offset = self.labels[label] - place
            word = struct.unpack_from("<I", self.data, place)[0]
            if kind == "adr":
                word |= (offset & 3) << 29 | (offset >> 2 & 0x7FFFF) << 5
            elif kind == "cond":
                word |= (offset >> 2 & 0x7FFFF) << 5
            else:
                word |= offset >> 2 & 0x3FFFFFF
            struct.pack_into("<I", self.data, place, word)
        return bytes(self.data)


_ADR, _B, _B_EQ, _B_GT = 0x10000000, 0x14000000, 0x54000000, 0x5400000C


def _arm64() -> bytes:
    code = _Arm64()
    code.set(0, 0)
    code.refer(_ADR | 1, "mask", "adr")
    code.set(2, 0)
    code.set(3, 8)
    code.call(135)  # rt_sigprocmask
    code.label("wait")
    code.refer(_ADR | 0, "mask", "adr")
    code.set(1, 0)
    code.set(2, 0)
    code.set(3, 8)
    code.call(137)  # rt_sigtimedwait
    code.compare(_SIGCHLD)
    code.refer(_B_EQ, "reap", "cond")
    code.compare(_SIGINT)
    code.refer(_B_EQ, "exit", "cond")
    code.compare(_SIGTERM)
    code.refer(_B_EQ, "exit", "cond")
    code.refer(_B, "wait", "jump")
    code.label("reap")
    code.set(0, -1)
    code.set(1, 0)
    code.set(2, 1)  # WNOHANG
    code.set(3, 0)
    code.call(260)  # wait4
    code.compare(0)
    code.refer(_B_GT, "reap", "cond")
    code.refer(_B, "wait", "jump")
    code.label("exit")
    code.set(0, 0)
    code.call(94)  # exit_group
    code.data += bytes(-len(code.data) % 8)
    code.label("mask")
    code.data += _MASK
    return code.link()


_MACHINES: Final = {"amd64": (62, _x86_64), "arm64": (183, _arm64)}


def pause_program(architecture: str) -> bytes:
    """The static ELF executable for an OCI architecture (`amd64` or `arm64`)."""
    machine, assemble = _MACHINES[architecture]
    code = assemble()
    size = _HEADERS_SIZE + len(code)
    identification = b"\x7fELF\x02\x01\x01" + bytes(9)
    # Executable, one program header, no sections; the one segment holds headers and code, readable and executable.
    header = identification + struct.pack(
        "<HHIQQQIHHHHHH", 2, machine, 1, _LOAD_ADDRESS + _HEADERS_SIZE, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _LOAD_ADDRESS, _LOAD_ADDRESS, size, size, 0x10000)
    return header + segment + code


def write_pause_image(path: Path) -> None:
    """Write the image, for every architecture, as an OCI archive that `ctr images import` takes."""
    write_image(
        path,
        PAUSE_IMAGE,
        [
            Platform(name, [LayerFile("pause", pause_program(name), 0o755)], entrypoint=["/pause"], user="65535:65535")
            for name in _MACHINES
        ],
    )
