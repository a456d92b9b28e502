"""Files that a stranger might send: each names something, claims something, or is broken."""

import gzip
import random
import struct
from pathlib import Path

from recordings import SPEECH, reencoded


def naming_others(folder: Path, local: Path, port: int) -> dict[str, bytes]:
    """Playlists and containers that name a local file and an address; by name, what they are.

    Args:
        folder: for the one that has to be made by an encoder.
        local: a recording that must not be heard.
        port: of a listener on the loopback that must not be called.
    """
    url = f"http://127.0.0.1:{port}/a.wav"
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:7,\n{}\n#EXT-X-ENDLIST\n"
    playlists = {
        "hls with a file": hls.format(f"file://{local}"),
        "hls with an address": hls.format(url),
        "hls with a key": f'#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{url}"\n#EXTINF:7,\n{local}\n#EXT-X-ENDLIST\n',
        "hls with concat": hls.format(f"concat:{local}|{url}"),
        "ffconcat with a file": f"ffconcat version 1.0\nfile {local}\n",
        "ffconcat with an address": f"ffconcat version 1.0\nfile {url}\n",
        "dash": f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{url}</BaseURL></MPD>',
        "sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=audio {port} RTP/AVP 0\n",
        "rtsp": f"rtsp://127.0.0.1:{port}/a",
        "ffmetadata": f";FFMETADATA1\ntitle={local}\n",
        "smil": f'<smil><body><audio src="{url}"/></body></smil>',
        "pls": f"[playlist]\nFile1={url}\nNumberOfEntries=1\n",
    }
    return {
        **{name: text.encode() for name, text in playlists.items()},
        "hls in avi": _avi(hls.format(f"file://{local}").encode()),
        "mov with a reference": _mov_with_reference(str(local)),
        "gzip": gzip.compress(local.read_bytes()),
        "gzip of zeros": gzip.compress(bytes(20 * 2**20)),
    }


def claiming(folder: Path) -> dict[str, bytes]:
    """Headers that promise more than there is, and small files that become large ones."""
    clip = (SPEECH / "amiable-3s.wav").read_bytes()[44:]
    flac = bytearray(reencoded("amiable-3s.wav", folder / "a.flac", "flac", 44_100).read_bytes())
    return {
        "wav of ten hours": wav_header(16_000, 1, 36_000 * 32_000) + clip,
        "wav without end": wav_header(16_000, 1, 0xFFFFFFFF) + clip,
        "wav of 65535 channels": wav_header(16_000, 65_535, len(clip)) + clip,
        "wav of 64 channels": wav_header(16_000, 64, len(clip)) + clip,
        "wav at 1 Hz": wav_header(1, 1, len(clip)) + clip,
        "wav at 4 GHz": wav_header(0xFFFFFFFF, 1, len(clip)) + clip,
        "wav at 0 Hz": wav_header(0, 1, len(clip)) + clip,
        "wav of no channels": wav_header(16_000, 0, len(clip)) + clip,
        "wav of floats that are no numbers": wav_header(16_000, 1, 4000, tag=3, bits=32) + b"\xff\xff\xff\x7f" * 1000,
        "flac of 2^36 samples": bytes(flac[:21]) + b"\x0a\xc4\x42\xff\xff\xff\xff\xff" + bytes(flac[29:]),
        "flac of blocks of 65535": bytes(flac[:8]) + b"\xff\xff\xff\xff" + bytes(flac[12:]),
        "mkv with huge cues": _mkv(b"\x1c\x53\xbb\x6b" + b"\x01" + (2**40).to_bytes(7, "big") + b"\xbb" * 1000),
        "mkv with an element of 2^56": _mkv(b"\x1c\x53\xbb\x6b\x01" + b"\xff" * 6 + b"\xfe" + bytes(100)),
        "mkv of many nested clusters": _mkv(b"\x1f\x43\xb6\x75\x01\xff\xff\xff\xff\xff\xff\xff" * 5000),
        "mov of a huge sample table": _mov_of_huge_table(),
        "ogg of one page, again and again": _ogg_page() * 3000,
        "id3 of 256 MB": b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + bytes(1000),
    }


def wav_header(rate: int, channels: int, size: int, tag: int = 1, bits: int = 16) -> bytes:
    frame = channels * bits // 8
    riff = b"RIFF" + struct.pack("<I", min(36 + size, 0xFFFFFFFF)) + b"WAVEfmt "
    fmt = struct.pack("<IHHIIHH", 16, tag, channels, rate, rate * frame & 0xFFFFFFFF, frame & 0xFFFF, bits)
    return riff + fmt + b"data" + struct.pack("<I", min(size, 0xFFFFFFFF))


def damaged(folder: Path, count: int, rng: random.Random) -> list[bytes]:
    """Real recordings in several formats, cut off somewhere or with some of their bits turned over."""
    formats = [("a.mp3", "mp3", 44_100), ("a.flac", "flac", 44_100), ("a.m4a", "aac", 44_100),
               ("a.webm", "libopus", 48_000), ("a.ogg", "flac", 44_100), ("a.avi", "adpcm_ms", 16_000)]  # fmt: skip
    clips = sorted(SPEECH.glob("*.wav"))
    originals = [clip.read_bytes() for clip in clips]
    originals += [
        reencoded(clips[i % 3].name, folder / name, codec, rate).read_bytes()
        for i, (name, codec, rate) in enumerate(formats)
    ]
    return [_damage(bytearray(originals[i % len(originals)]), rng) for i in range(count)]


def _damage(content: bytearray, rng: random.Random) -> bytes:
    if rng.random() < 0.1:
        return bytes(content[: rng.randrange(len(content))])
    # Headers say most, so most damage is there.
    end = rng.choice([64, 512, 4096, len(content)])
    for _ in range(rng.randint(1, 12)):
        content[rng.randrange(min(end, len(content)))] ^= 1 << rng.randrange(8)
    return bytes(content)


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def _avi(playlist: bytes) -> bytes:
    """A subtitle stream with a playlist in it: FFmpeg once opened such a thing by its content (CVE-2016-1897)."""
    header = struct.pack("<14I", 0, 0, 0, 16, 1, 0, 1, 0, 16, 16, 0, 0, 0, 0)
    stream = b"txts" + bytes(4) + struct.pack("<12I", 0, 0, 0, 1, 1, 0, 1, 0, 0, 0, 0, 0)
    lists = b"hdrl" + _chunk(b"avih", header) + _chunk(b"LIST", b"strl" + _chunk(b"strh", stream))
    gab2 = b"GAB2\0" + struct.pack("<HI", 2, 2) + b"a\0" + struct.pack("<HI", 4, len(playlist)) + playlist
    movie = _chunk(b"LIST", lists) + _chunk(b"LIST", b"movi" + _chunk(b"00tx", gab2))
    return _chunk(b"RIFF", b"AVI " + movie)


def _atom(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + name + body


def _mov_with_reference(path: str) -> bytes:
    """A QuickTime film whose samples are in another file."""
    alias = bytes(150) + struct.pack(">hh", 18, len(path)) + path.encode() + struct.pack(">hh", -1, 0)
    dref = _atom(b"dref", bytes(4) + struct.pack(">I", 1) + _atom(b"alis", bytes(4) + alias))
    return _mov(_atom(b"dinf", dref), samples=1000)


def _mov_of_huge_table() -> bytes:
    return _mov(_atom(b"dinf", _atom(b"dref", bytes(8))), samples=0x7FFFFFFF)


def _mov(dinf: bytes, samples: int) -> bytes:
    sowt = struct.pack(">I4s6xH8xHHHHI", 36, b"sowt", 1, 1, 16, 0, 0, 16_000 << 16)
    table = (
        _atom(b"stsd", bytes(4) + struct.pack(">I", 1) + sowt)
        + _atom(b"stts", bytes(4) + struct.pack(">III", 1, samples, 1))
        + _atom(b"stsc", bytes(4) + struct.pack(">IIII", 1, 1, samples, 1))
        + _atom(b"stsz", bytes(4) + struct.pack(">II", 2, samples))
        + _atom(b"stco", bytes(4) + struct.pack(">II", 1, 0))
    )
    hdlr = _atom(b"hdlr", bytes(4) + b"mhlrsoun" + bytes(12))
    mdhd = _atom(b"mdhd", bytes(12) + struct.pack(">III", 16_000, samples, 0))
    minf = _atom(b"minf", dinf + _atom(b"stbl", table))
    tkhd = _atom(b"tkhd", bytes(80))
    return _atom(b"ftyp", b"qt  " + bytes(4)) + _atom(
        b"moov", _atom(b"trak", tkhd + _atom(b"mdia", mdhd + hdlr + minf))
    )


def _mkv(rest: bytes) -> bytes:
    doctype = b"\x42\x82\x88matroska"
    header = b"\x1a\x45\xdf\xa3" + bytes([0x80 | len(doctype)]) + doctype
    return header + b"\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff" + rest


def _ogg_page() -> bytes:
    head = b"OpusHead" + struct.pack("<BBHIhB", 1, 255, 0, 48_000, 0, 255)
    page = b"OggS" + struct.pack("<BBqIIIB", 0, 2, -1, 1, 0, 0, 1)
    return page + bytes([len(head)]) + head
