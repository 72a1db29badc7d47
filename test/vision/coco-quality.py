"""Writes coco-quality.json: random scenes, and what COCO's definition of average precision says of them.

Slow and straightforward on purpose: one class, one size, one threshold and one number of detections at a time, written
from the text of cocodataset.org/#detection-eval and of its evaluation's rules for crowds and sizes, without arrays.
Scores are distinct unless a scene says otherwise; boxes lie on a grid, so that equal overlaps and overlaps of exactly a
threshold happen.

Usage: /usr/bin/python3 test/vision/coco-quality.py
"""
import json
import os
import random
from fractions import Fraction

import numpy

THRESHOLDS = [Fraction(50 + 5 * i, 100) for i in range(10)]
# COCO's evaluation has NumPy's floating point numbers here; its 0.7 is a little more than seven of ten.
RECALLS = numpy.linspace(0, 1, 101)
SIZES = {"all": (0, 10 ** 10), "small": (0, 32 ** 2), "medium": (32 ** 2, 96 ** 2), "large": (96 ** 2, 10 ** 10)}


def area(box):
    return (box[2] - box[0]) * (box[3] - box[1])


def overlap(found, thing):
    w = min(found[2], thing["box"][2]) - max(found[0], thing["box"][0])
    h = min(found[3], thing["box"][3]) - max(found[1], thing["box"][1])
    if w <= 0 or h <= 0:
        return Fraction(0)
    below = area(found) if thing["crowd"] else area(found) + area(thing["box"]) - w * h
    return Fraction(w * h, below)


def judge(scenes, cls, size, threshold, most):
    """The list of (score, is right) of detections that count, and the number of things that count."""
    low, high = SIZES[size]
    answers, count = [], 0
    for scene in scenes:
        things = [t for t in scene["objects"] if t["class"] == cls]
        wanted, unwanted = [], []
        for thing in things:
            size_of = thing["area"] if thing["area"] is not None else area(thing["box"])
            (unwanted if thing["crowd"] or not low <= size_of <= high else wanted).append(thing)
        count += len(wanted)
        found = sorted((d for d in scene["detections"] if d["class"] == cls), key=lambda d: -d["score"])[:most]
        used = []
        for d in found:
            def candidates(group):
                free = [t for t in group if t["crowd"] or not any(t is u for u in used)]
                return [t for t in free if overlap(d["box"], t) >= threshold]

            # Of equal overlaps the last listed is taken.
            def best(group):
                top = max(overlap(d["box"], t) for t in group)
                return [t for t in group if overlap(d["box"], t) == top][-1]

            if candidates(wanted):
                used.append(best(candidates(wanted)))
                answers.append((d["score"], True))
            elif candidates(unwanted):
                used.append(best(candidates(unwanted)))
            elif low <= area(d["box"]) <= high:
                answers.append((d["score"], False))
    return answers, count


def average_precision(answers, count):
    answers = sorted(answers, key=lambda a: -a[0])
    points, right = [], 0  # recall as a floating point number, precision exactly
    for n, (_, good) in enumerate(answers, 1):
        right += good
        points.append((right / count, Fraction(right, n)))
    total = Fraction(0)
    for recall in RECALLS:
        total += max([p for r, p in points if r >= recall], default=Fraction(0))
    return total / len(RECALLS)


def average_recall(answers, count):
    return Fraction(sum(1 for _, good in answers if good), count)


def mean(values):
    values = [v for v in values if v is not None]
    return sum(values) / len(values) if values else None


def number(scenes, classes, measure, size="all", most=100, thresholds=THRESHOLDS):
    def one(cls, threshold):
        answers, count = judge(scenes, cls, size, threshold, most)
        return measure(answers, count) if count else None
    values = [one(cls, t) for cls in classes for t in thresholds]
    result = mean(values)
    return None if result is None else float(result)


def quality(scenes, classes):
    ap, ar = average_precision, average_recall
    of = lambda *args, **kw: number(scenes, range(classes), *args, **kw)
    return {
        "ap": of(ap), "ap50": of(ap, thresholds=THRESHOLDS[:1]), "ap75": of(ap, thresholds=THRESHOLDS[5:6]),
        "apSmall": of(ap, "small"), "apMedium": of(ap, "medium"), "apLarge": of(ap, "large"),
        "ar1": of(ar, most=1), "ar10": of(ar, most=10), "ar100": of(ar),
        "arSmall": of(ar, "small"), "arMedium": of(ar, "medium"), "arLarge": of(ar, "large"),
        "perClass": [{"ap": number(scenes, [c], ap), "ap50": number(scenes, [c], ap, thresholds=THRESHOLDS[:1]),
                      "ar100": number(scenes, [c], ar)} for c in range(classes)],
    }


def box(rng, grid):
    x, y = rng.randrange(0, 20) * grid, rng.randrange(0, 20) * grid
    return [x, y, x + rng.randrange(1, 12) * grid, y + rng.randrange(1, 12) * grid]


def near(rng, b, grid):
    """A box close to another: each edge moved by a few steps, now and then not at all."""
    step = rng.choice([0, 1, grid])
    while True:
        moved = [v + rng.choice([-2, -1, 0, 0, 1, 2]) * step for v in b]
        if moved[0] < moved[2] and moved[1] < moved[3]:
            return moved


def scene(rng, classes, crowded):
    grid = rng.choice([4, 8, 16])
    objects = [{"class": rng.randrange(classes), "box": box(rng, grid), "crowd": rng.random() < 0.15,
                "area": None} for _ in range(rng.randrange(0, 8))]
    for o in objects:
        if rng.random() < 0.3:
            o["area"] = max(1, area(o["box"]) * rng.randrange(30, 100) // 100)
    detections = []
    for _ in range(rng.randrange(60, 90) if crowded else rng.randrange(0, 16)):
        base = rng.choice(objects) if objects and rng.random() < 0.8 else None
        detections.append({"class": base["class"] if base and rng.random() < 0.9 else rng.randrange(classes),
                           "box": near(rng, base["box"], grid) if base else box(rng, grid),
                           "score": round(rng.random(), 9)})
    return {"objects": objects, "detections": detections}


def main():
    rng = random.Random(20)
    cases = []
    for n in range(14):
        classes = rng.randrange(1, 4)
        scenes = [scene(rng, classes, n == 13) for _ in range(3 if n == 13 else rng.randrange(1, 9))]
        if n == 13:  # more than a hundred detections of one class on one image
            for d in scenes[0]["detections"]:
                d["class"] = 0
            scenes[0]["detections"] += [{"class": 0, "box": box(rng, 8), "score": round(rng.random(), 9)} for _ in range(60)]
        cases.append({"classes": classes, "images": scenes, "quality": quality(scenes, classes)})
    path = os.path.join(os.path.dirname(__file__), "coco-quality.json")
    with open(path, "w") as file:
        json.dump(cases, file, separators=(",", ":"))
        file.write("\n")
    print(len(cases), os.path.getsize(path), [c["quality"]["ap"] for c in cases])


main()
