import random


def estimate(samples):
    inside = 0
    for part in range(1, 6):
        for _ in range(samples // 5):
            inside += random.random() ** 2 + random.random() ** 2 <= 1
        print(f"{part * 20}%: pi is about {20 * inside / part / samples:.4f}")
    return 4 * inside / samples
