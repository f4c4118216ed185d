# SPDX-License-Identifier: Apache-2.0
"""People and dogs, facing +x."""

from __future__ import annotations

import numpy as np

from foundry_core.data.mesh import LabeledMesh
from foundry_core.data.procedural.assembly import Assembly, chance, pick
from foundry_core.data.procedural.primitives import (
    blob,
    capsule,
    circle,
    lift,
    loft,
    moved,
    rods,
    rotated,
    superellipsoid,
)


def _swing(angle: float, spread: float = 0.0) -> np.ndarray:
    """Unit vector that hangs down, swung forward by ``angle`` and outwards to +y by ``spread`` (radians)."""
    return np.array([np.sin(angle) * np.cos(spread), np.sin(spread), -np.cos(angle) * np.cos(spread)])


def person(rng: np.random.Generator) -> LabeledMesh:
    """Adults and children who stand, walk, reach, wave, bend or squat; trousers, skirts, coats, hats and packs."""
    shape = Assembly()
    tall = rng.uniform(1.5, 1.95) if chance(rng, 0.85) else rng.uniform(1.0, 1.45)
    stout = rng.uniform(0.85, 1.3)
    leg, trunk = tall * rng.uniform(0.45, 0.49), tall * rng.uniform(0.29, 0.32)
    head = tall * rng.uniform(0.125, 0.14) * (1.0 if tall > 1.45 else 1.12)
    shoulder, hip = tall * rng.uniform(0.11, 0.13) * stout**0.5, tall * rng.uniform(0.05, 0.065)
    pose = pick(rng, "stand", "stand", "walk", "walk", "walk", "reach", "wave", "carry", "bend", "squat")
    stride = {"walk": rng.uniform(0.15, 0.55), "squat": 0.0}.get(pose, rng.uniform(0.0, 0.08))
    lean = {"bend": rng.uniform(0.4, 1.1), "squat": rng.uniform(0.2, 0.6)}.get(pose, rng.uniform(-0.03, 0.12))
    squat = rng.uniform(0.7, 1.25) if pose == "squat" else 0.0
    thigh, shin = leg * 0.5, leg * 0.46
    up = np.array([np.sin(lean), 0.0, np.cos(lean)])
    width = tall * 0.042 * stout
    lowest = 0.0
    limbs = []
    for side in (-1, 1):
        forward = squat + stride * side
        bend = max(
            squat * 2.0 - 0.25, rng.uniform(0.02, 0.15) + (rng.uniform(0.1, 0.7) if side < 0 else 0.1) * stride * 1.4
        )
        start = np.array([0.0, side * hip, 0.0])
        spread = side * (rng.uniform(0.0, 0.1) + squat * 0.2)
        knee = start + _swing(forward, spread) * thigh
        ankle = knee + _swing(forward - bend, spread * 0.5) * shin
        toe = ankle + np.array([tall * 0.1, side * tall * 0.012, -tall * 0.012])
        limbs += [
            (start, knee, width * 1.25, width * 0.85),
            (knee, ankle, width * 0.85, width * 0.6),
            (ankle - (tall * 0.015, 0, 0), toe, tall * 0.024, tall * 0.019),
        ]
        lowest = min(lowest, toe[2], ankle[2])
    for start, end, first, second in limbs:
        shape.add("leg", capsule(start, end, first, second))
    neck = up * trunk
    chest = (np.array([shoulder * rng.uniform(1.0, 1.25), shoulder * 2.0, trunk * 0.75]), neck * 0.62)
    belly = (
        np.array([shoulder * rng.uniform(1.0, 1.3) * stout**0.5, (shoulder + hip) * 1.25 * stout**0.5, trunk * 0.62]),
        neck * 0.18,
    )
    for size, middle in (chest, belly):
        vertices, triangles = superellipsoid((0, 0, 0), size, 0.8, 0.8, 14, 8)
        frame = np.array([[up[2], 0, -up[0]], [0, 1, 0], up])
        shape.add("torso", (vertices @ frame + middle, triangles))
    clothes = pick(rng, "plain", "plain", "plain", "plain", "coat", "skirt")
    if clothes != "plain" and not squat:
        hem, flare = -leg * rng.uniform(0.3, 0.85), rng.uniform(1.0, 1.5)
        outline = circle(16) * (hip * 2.0 * stout**0.5, (shoulder + hip) * 0.75)
        opening = 1.0 + stride * 0.8
        shape.add(
            "leg" if clothes == "skirt" else "torso",
            loft([lift(outline, hem, flare * opening), lift(outline, trunk * 0.15), lift(outline, trunk * 0.3, 0.85)]),
        )
    top = neck + up * (head * 0.25)
    face = top + up * head * 0.72 + np.array([head * 0.08, 0, 0])
    shape.add(
        "head",
        capsule(neck * 0.95, top, tall * 0.03),
        superellipsoid(face, (head * 0.95, head * 0.78, head * 1.3), 0.9, 1, 12, 8),
    )
    if chance(rng, 0.35):  # hair, a cap or a helmet
        size = head * rng.uniform(0.95, 1.25)
        shape.add(
            "head",
            superellipsoid(face + (-head * 0.05, 0, head * 0.25), (size * 1.1, size, size * 0.95), 0.8, 1, 12, 6),
        )
    if chance(rng, 0.25):  # a pack
        back = neck * 0.6 - np.array([shoulder * 0.9, 0, 0])
        shape.add(
            "torso",
            superellipsoid(
                back, (shoulder * rng.uniform(0.7, 1.3), shoulder * 1.5, trunk * rng.uniform(0.6, 0.95)), 0.5, 0.5
            ),
        )
    upper, fore, thick = tall * 0.165, tall * 0.15, tall * 0.027 * stout**0.5
    for side in (-1, 1):
        start = neck * 0.9 + np.array([0.0, side * shoulder, 0.0])
        swing, bend, spread = (
            -stride * side * 1.1 + rng.uniform(-0.1, 0.15),
            rng.uniform(0.05, 0.5),
            rng.uniform(0.03, 0.25),
        )
        if pose == "reach" or (pose == "carry") or (pose == "bend" and chance(rng, 0.6)):
            swing, bend = (
                (rng.uniform(0.9, 1.7), rng.uniform(0.0, 0.4))
                if pose == "reach"
                else (rng.uniform(0.1, 0.5), rng.uniform(1.0, 1.6))
            )
        elif pose == "wave" and (side > 0 or chance(rng, 0.3)):
            swing, bend, spread = rng.uniform(0.2, 2.8), rng.uniform(0.1, 1.2), rng.uniform(0.3, 1.2)
        elif pose == "squat":
            swing, bend = rng.uniform(0.4, 1.2), rng.uniform(0.2, 1.0)
        elbow = start + _swing(swing, side * spread) * upper
        wrist = elbow + _swing(swing + bend, side * spread * rng.uniform(-0.4, 0.9)) * fore
        hand = wrist + (wrist - elbow) / fore * tall * 0.035
        shape.add(
            "arm",
            capsule(start, elbow, thick * 1.15, thick),
            capsule(elbow, wrist, thick, thick * 0.75),
            capsule(wrist, hand, thick * 0.85, segments=8),
        )
    return shape.mesh()


def dog(rng: np.random.Generator) -> LabeledMesh:
    """Small to large dogs, standing, walking or sitting; pointed or hanging ears."""
    shape = Assembly()
    high = rng.uniform(0.25, 0.65)  # height at the shoulder
    length, deep = high * rng.uniform(0.8, 1.2), high * rng.uniform(0.38, 0.55)
    wide = deep * rng.uniform(0.6, 0.9)
    leg = high - deep * 0.6
    sitting = chance(rng, 0.2)
    # a dog that sits lowers its rump to the floor
    drop = (high - deep) / (length * 0.85)
    pitch = np.arcsin(min(drop, 0.85)) if sitting else rng.uniform(-0.06, 0.06)
    along = np.array([np.cos(pitch), 0.0, np.sin(pitch)])
    front = np.array([length / 2, 0.0, high - deep / 2])
    rear = front - along * length * (0.85 if sitting else 1.0)
    shape.add("torso", capsule(rear, front, deep * rng.uniform(0.33, 0.48), deep * 0.42, 12))
    chest = (length * 0.55, wide * rng.uniform(0.95, 1.2), deep * 1.05)
    shape.add("torso", moved(rotated(superellipsoid((0, 0, 0), chest), "y", -pitch), *(front - along * length * 0.2)))
    thick = high * rng.uniform(0.045, 0.07)
    stride = rng.uniform(0, 0.45)
    for side in (-1, 1):
        y = side * wide * 0.45
        for start, phase in ((front, 1), (rear, -1)):
            hip = start + np.array([-0.02, y, -deep * 0.1])
            if sitting and phase < 0:
                foot = np.array([hip[0] + leg * 0.55, y * 1.3, thick])
                knee = np.array([hip[0] + leg * 0.5, y * 1.5, max(hip[2], leg * 0.45)])
            else:
                swing = stride * side * phase + rng.uniform(-0.05, 0.05)
                foot = np.array([hip[0] + np.sin(swing) * leg, y, thick])
                knee = (hip + foot) / 2 + np.array([0.06 * leg * phase * -1, 0, 0])
            shape.add("leg", capsule(hip, knee, thick * 1.5, thick), capsule(knee, foot, thick, thick * 0.8, 8))
            shape.add("leg", capsule(foot, foot + (thick * 1.3, 0, -thick * 0.1), thick * 0.85, segments=8))
    rise = rng.uniform(0.4, 1.2)
    neck = np.array([np.cos(rise), 0, np.sin(rise)]) * high * rng.uniform(0.25, 0.4)
    skull = front + along * deep * 0.2 + neck
    size = high * rng.uniform(0.27, 0.38)
    snout, droop = size * rng.uniform(0.35, 1.0), rng.uniform(0.0, 0.5)
    shape.add(
        "head",
        capsule(front + (0, 0, deep * 0.1), skull, deep * rng.uniform(0.24, 0.34), size * 0.34),
        superellipsoid(skull, (size, size * 0.85, size * 0.85)),
    )
    nose = skull + np.array([np.cos(droop), 0, -np.sin(droop)]) * (size * 0.35 + snout)
    shape.add("head", capsule(skull + (size * 0.2, 0, -size * 0.08), nose, size * 0.28, size * rng.uniform(0.15, 0.24)))
    ears = pick(rng, "pointed", "folded", "hanging")
    for side in (-1, 1):
        root = skull + np.array([-size * 0.15, side * size * 0.3, size * 0.3])
        if ears == "hanging":
            shape.add(
                "head",
                superellipsoid(
                    root + (0, side * size * 0.18, -size * 0.4), (size * 0.4, size * 0.16, size * 0.9), segments=8
                ),
            )
        else:
            tip = (
                root
                + (np.array([0, side * 0.1, 0.5]) if ears == "pointed" else np.array([0.2, side * 0.3, 0.1])) * size
            )
            shape.add("head", rods(root, tip, size * 0.2, size * 0.05, 5))
    shaggy = chance(rng, 0.3)
    if shaggy:
        size = (length * 1.25, wide * rng.uniform(1.3, 1.8), deep * rng.uniform(1.2, 1.5))
        coat = blob(rng, (0, 0, 0), size, 0.1, 14, 8)
        shape.add("torso", moved(rotated(coat, "y", -pitch), *((front + rear) / 2)))
        shape.add("head", blob(rng, skull, np.full(3, high * 0.38), 0.12, 10, 6))
    lift_angle, reach = rng.uniform(-0.9, 1.4), high * rng.uniform(0.12, 0.6)
    root = rear + np.array([-deep * 0.35, 0, deep * 0.2])
    bend = root + np.array([-np.cos(lift_angle), 0, np.sin(lift_angle)]) * reach * 0.5
    tip = bend + np.array([-np.cos(lift_angle + 0.5), 0, np.sin(lift_angle + 0.5)]) * reach * 0.5
    if shaggy or chance(rng, 0.25):  # a bushy tail
        shape.add("tail", capsule(root, tip, thick * 1.3, thick * 2.2, 8))
        return shape.mesh()
    shape.add("tail", capsule(root, bend, thick * 0.8, thick * 0.6, 8), capsule(bend, tip, thick * 0.6, thick * 0.3, 8))
    return shape.mesh()


MAKERS = {"person": person, "dog": dog}
