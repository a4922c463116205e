"""src/base/rng.rs in numpy: the same Philox4x32-10, so that inputs and weights are drawn on both sides and need no file."""
import numpy as np
import torch

OTHER = 8  # Stream::Other


def philox(key, counter):
    """counter: four uint64 arrays that hold 32 bits each."""
    low = np.uint64(0xFFFFFFFF)
    k = [np.uint64(v) for v in key]
    c = counter
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(p1 >> np.uint64(32)) ^ c[1] ^ k[0], p1 & low, (p0 >> np.uint64(32)) ^ c[3] ^ k[1], p0 & low]
        k = [np.uint64((int(k[0]) + 0x9E3779B9) & 0xFFFFFFFF), np.uint64((int(k[1]) + 0xBB67AE85) & 0xFFFFFFFF)]
    return c


def bits(seed, t, n):
    """The first n draws of Rng::new(seed, Stream::Other, t, 0).u32()."""
    blocks = (n + 3) // 4
    fixed = lambda v: np.full(blocks, v, np.uint64)
    c = philox((seed & 0xFFFFFFFF, seed >> 32), [np.arange(blocks, dtype=np.uint64), fixed(0), fixed(t), fixed(OTHER)])
    return np.stack(c, 1).reshape(-1)[:n]


def uniform(seed, t, shape, lo, hi):
    """Rng::uniform, bit for bit, as float64 (every f32 is one)."""
    unit = (bits(seed, t, int(np.prod(shape))) >> np.uint64(8)).astype(np.float32) * np.float32(2.0**-24)
    lo, hi = np.float32(lo), np.float32(hi)
    return torch.from_numpy((lo + (hi - lo) * unit).reshape(shape)).double()


def below(seed, t, shape, n):
    """Rng::below."""
    return torch.from_numpy(((bits(seed, t, int(np.prod(shape))) * np.uint64(n)) >> np.uint64(32)).astype(np.int64).reshape(shape))


def known_answers():
    word = lambda *v: [np.array([x], np.uint64) for x in v]
    got = philox((0xA4093822, 0x299F31D0), word(0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344))
    assert [int(v[0]) for v in got] == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1], "Random123's vector"


known_answers()
