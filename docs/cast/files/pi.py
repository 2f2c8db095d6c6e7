import random


def estimate(samples):
    inside = 0
    for done in range(1, samples + 1):
        inside += random.random() ** 2 + random.random() ** 2 <= 1
        if done % 250_000 == 0:
            print(f"{done:,} of {samples:,}: pi is about {4 * inside / done:.4f}")
    return 4 * inside / samples
