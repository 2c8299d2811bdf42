"""Broken sound files."""

import random


def mutations(seeds: list[bytes], count: int) -> list[bytes]:
    """Files with bytes flipped, inserted, cut off or of another file; headers more often."""
    draw = random.Random(0)
    found = []
    while len(found) < count:
        one, other = bytearray(draw.choice(seeds)), draw.choice(seeds)
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(min(len(one), draw.choice((48, 48, 200, 10**6)))) if one else 0
            action = draw.randrange(6)
            if action == 0 and one:
                one[at] ^= 1 << draw.randrange(8)
            elif action == 1:
                one[at : at + 4] = draw.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1)).to_bytes(4)
            elif action == 2:
                one[at:at] = draw.randbytes(draw.randint(1, 9))
            elif action == 3:
                del one[at:]
            elif action == 4:
                del one[at : at + draw.randint(1, 9)]
            else:
                one[at:] = other[draw.randrange(len(other)) :]
        found.append(bytes(one))
    return found
