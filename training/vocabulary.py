"""The words that the model knows, and captions made of them.

Everything that a caption can say is listed here: objects with their synonyms and artwork, colours,
scenes, rendering styles of objects and effects on whole pictures. `Picture` describes one training
picture; `caption` puts it into words, differently each time.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

FLAT, SOLID, NOTO = "fluent-emoji-flat", "fluent-emoji", "noto"


@dataclass(frozen=True)
class Object:
    """Something to draw: its first name is the canonical one."""

    names: tuple[str, ...]
    icon: str
    tintable: bool = True
    # Icon set of the cartoon rendering; the 3d rendering is always Fluent's shaded one.
    cartoon: str = FLAT
    # Part of the icon to keep, as fractions (left, top, right, bottom).
    crop: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)


OBJECTS = (
    Object(("sofa", "couch"), "couch-and-lamp", crop=(0.0, 0.445, 0.80, 1.0)),
    Object(("plant", "potted plant", "indoor plant"), "potted-plant", False),
    Object(("painting", "framed picture", "picture frame"), "framed-picture", False),
    Object(("chair",), "chair"),
    Object(("bed",), "bed"),
    Object(("candle",), "candle"),
    Object(("lamp", "light bulb"), "light-bulb"),
    Object(("door",), "door"),
    Object(("house", "home"), "house"),
    Object(("castle",), "castle"),
    Object(("tree",), "deciduous-tree", False),
    Object(("palm tree", "palm"), "palm-tree", False),
    Object(("cactus",), "cactus", False),
    Object(("flower", "tulip"), "tulip"),
    Object(("mushroom", "toadstool"), "mushroom"),
    Object(("sun",), "sun-with-face", False),
    Object(("moon", "crescent moon"), "crescent-moon", False),
    Object(("cloud",), "cloud", False),
    Object(("rainbow",), "rainbow", False),
    Object(("star",), "star"),
    Object(("dog", "puppy"), "dog", cartoon=NOTO),
    Object(("cat", "kitten"), "cat", cartoon=NOTO),
    Object(("horse", "pony"), "horse"),
    Object(("elephant",), "elephant"),
    Object(("rabbit", "bunny"), "rabbit"),
    Object(("penguin",), "penguin", False),
    Object(("owl",), "owl"),
    Object(("fish",), "fish"),
    Object(("whale",), "spouting-whale"),
    Object(("turtle", "tortoise"), "turtle"),
    Object(("butterfly",), "butterfly"),
    Object(("car", "automobile"), "automobile"),
    Object(("bus",), "bus"),
    Object(("bicycle", "bike"), "bicycle"),
    Object(("airplane", "plane", "aeroplane"), "airplane"),
    Object(("rocket", "spaceship"), "rocket"),
    Object(("boat", "sailboat", "sailing boat"), "sailboat"),
    Object(("balloon",), "balloon"),
    Object(("apple",), "red-apple"),
    Object(("banana",), "banana", False),
    Object(("pizza", "slice of pizza"), "pizza", False),
    Object(("cake", "birthday cake"), "birthday-cake", False),
    Object(("guitar",), "guitar"),
    Object(("robot",), "robot"),
    Object(("snowman",), "snowman", False),
    Object(("umbrella",), "umbrella"),
    Object(("heart",), "red-heart"),
    Object(("ball", "football", "soccer ball"), "soccer-ball"),
)

# sRGB values that objects are tinted with and that plain backgrounds are near to.
COLOURS = {
    "red": (222, 40, 40),
    "orange": (245, 140, 30),
    "yellow": (250, 215, 50),
    "green": (50, 165, 60),
    "blue": (40, 95, 225),
    "purple": (135, 60, 190),
    "pink": (250, 130, 185),
    "brown": (130, 80, 45),
    "black": (42, 42, 46),
    "white": (245, 245, 245),
    "gray": (135, 138, 142),
}
COLOUR_SYNONYMS = {"gray": ("gray", "grey"), "purple": ("purple", "violet")}

# Canonical name -> ways to say it. A phrase is completed by one of the prepositions given first.
SCENES = {
    "living room": ("in", "a living room", "the living room", "a room", "a living room wall"),
    "meadow": ("on", "a green meadow", "a meadow under a blue sky", "a meadow", "a grass field",
               "green grass under a blue sky"),
    "mountains": ("in", "the mountains", "a mountain landscape", "a mountain meadow", "mountains",
                  "a meadow with mountains"),
    "beach": ("on", "a beach", "the beach", "a sandy beach by the sea"),
    "night sky": ("in", "the night sky", "a night sky with stars", "a starry sky", "a dark starry night"),
    "sunset": ("at", "a sunset over the sea", "sunset", "a sunset", "sunset over the ocean"),
    "snow": ("on", "a snowy field", "the snow", "snow", "a field of snow in winter"),
    "brick wall": ("on", "a brick wall", "a red brick wall", "a wall of bricks"),
    "wooden table": ("on", "a wooden table", "a table", "a wood table top"),
    "underwater": ("under", "the sea", "water", "the water in the deep sea", "the ocean"),
    "desert": ("in", "the desert", "a desert", "a sandy desert with dunes"),
    "city street": ("on", "a city street", "a street in the city", "a road in a city", "the street"),
    "plain": ("on", "a plain background", "a {} background", "a plain {} background", "{} background"),
}
SCENE_NAMES = tuple(SCENES)
PLAIN = SCENE_NAMES.index("plain")
# What a scene is called when it is the whole picture and the phrase above would not do.
SCENES_ALONE = {"underwater": ("underwater", "an underwater scene", "under the sea", "the deep sea underwater")}

STYLES = {
    "cartoon": ("cartoon", "flat", "cartoon style"),
    "3d": ("3d", "3d render", "3d style"),
}
EFFECTS = {
    "none": (),
    "pixel art": ("pixel art", "pixelated", "pixel art style"),
    "pencil sketch": ("pencil sketch", "sketch", "pencil drawing"),
    "oil painting": ("oil painting", "van gogh", "painting by van gogh"),
    "blurry": ("blurry", "out of focus", "blurred"),
}
OBJECT_NAMES = tuple(thing.names[0] for thing in OBJECTS)
COLOUR_NAMES, STYLE_NAMES, EFFECT_NAMES = tuple(COLOURS), tuple(STYLES), tuple(EFFECTS)

# Words without a meaning of their own here; training puts them anywhere, so that they change little.
IDLE = ("big", "small", "some", "nice", "beautiful", "colored", "coloured", "featuring", "there", "is", "scene", "drawn",
        "front", "to", "as", ".")
# Words of the captions' grammar. The last two only have a token.
GRAMMAR = ("a", "an", "the", "of", "in", "on", "at", "under", "with", "and", "by", "style", "photo", "picture", "image",
           "next", "near", "background", "art", "render", "painted", "wall", "over", "sky", ",", "two", "none")


@dataclass
class Item:
    """One object of a picture; colour is an index into COLOURS or -1 for its own colours."""

    thing: int
    style: int
    colour: int = -1


@dataclass
class Picture:
    """What a training picture shows. `backdrop` is the colour of a plain scene, else -1."""

    scene: int
    backdrop: int = -1
    effect: int = 0
    items: list[Item] = field(default_factory=list)


def _article(words: str, rng: random.Random) -> str:
    article = "an" if words[0] in "aeiou" else "a"
    return rng.choices((f"{article} {words}", words, f"the {words}"), (8, 2, 1))[0]


def colour_word(colour: int, rng: random.Random) -> str:
    name = COLOUR_NAMES[colour]
    return rng.choice(COLOUR_SYNONYMS.get(name, (name,)))


def item_phrase(item: Item, rng: random.Random, with_style: bool) -> str:
    """"a cartoon red sofa", "a red sofa in cartoon style", "a 3d render of a red sofa", ..."""
    words = OBJECTS[item.thing].names
    name = words[0] if rng.random() < 0.6 else rng.choice(words)
    if item.colour >= 0:
        name = f"{colour_word(item.colour, rng)} {name}"
    if not with_style:
        return _article(name, rng)
    style = STYLE_NAMES[item.style]
    form = rng.random()
    if form < 0.6:
        return _article(f"{style} {name}", rng)
    if form < 0.8:
        return f"{_article(name, rng)} in {style} style"
    if style == "3d":
        return f"a 3d render of {_article(name, rng)}"
    return _article(f"{rng.choice(('flat', 'cartoon style'))} {name}", rng)


def scene_phrase(picture: Picture, rng: random.Random) -> tuple[str, str]:
    """The preposition and the words for the picture's scene."""
    name = SCENE_NAMES[picture.scene]
    preposition, *phrases = SCENES[name]
    if picture.scene == PLAIN:
        phrases = phrases[1:] if rng.random() < 0.9 else phrases[:1]
    phrase = phrases[0] if rng.random() < 0.4 else rng.choice(phrases)
    if "{}" in phrase:
        phrase = phrase.format(colour_word(picture.backdrop, rng))
    return preposition, phrase


def _with_effect(text: str, effect: int, rng: random.Random) -> str:
    name = EFFECT_NAMES[effect]
    if name == "none":
        return rng.choices((text, f"a picture of {text}", f"an image of {text}", f"a photo of {text}"),
                           (20, 1, 1, 1))[0]
    forms = {
        "pixel art": ("pixel art of {}", "{} in pixel art style", "{}, pixel art", "pixelated {}", "pixel art {}"),
        "pencil sketch": ("a pencil sketch of {}", "{}, pencil sketch", "a sketch of {}", "a pencil drawing of {}",
                          "pencil sketch {}"),
        "oil painting": ("an oil painting of {}", "{} in the style of van gogh", "{}, oil painting",
                         "{} painted by van gogh", "oil painting {}"),
        "blurry": ("a blurry picture of {}", "{}, out of focus", "blurry {}", "{}, blurred", "{}, blurry"),
    }[name]
    form = rng.choice(forms)
    if name == "blurry" and form.startswith("blurry") and text.startswith(("a ", "an ")):
        return "a blurry " + text.split(" ", 1)[1]
    return form.format(text)


def caption(picture: Picture, rng: random.Random) -> str:
    """Words for a picture: free in order and synonyms; the scene and the style may stay unsaid."""
    preposition, scene = scene_phrase(picture, rng)
    if not picture.items:
        alone = SCENES_ALONE.get(SCENE_NAMES[picture.scene])
        return _with_effect(rng.choice(alone) if alone else scene, picture.effect, rng)
    items = list(picture.items)
    rng.shuffle(items)
    with_style = rng.random() < 0.6
    phrases = [item_phrase(item, rng, with_style) for item in items]
    if len(phrases) > 2 and rng.random() < 0.6:
        joined = f"{', '.join(phrases[:-1])} and {phrases[-1]}"
    else:
        joined = rng.choices((" and ", ", ", " next to ", " near "), (6, 2, 1, 1))[0].join(phrases)
    if rng.random() < 0.3:
        text = joined
    elif SCENE_NAMES[picture.scene] == "underwater":
        text = rng.choice((f"{joined} underwater", f"{joined} under {scene}", f"underwater, {joined}"))
    else:
        text = rng.choices((f"{joined} {preposition} {scene}", f"{joined}, {scene}", f"{scene} with {joined}",
                            f"{scene}, {joined}"), (6, 1, 2, 1))[0]
    return _with_effect(text, picture.effect, rng)


def _phrases():
    for thing in OBJECTS:
        yield from thing.names
    for name in COLOUR_NAMES:
        yield from COLOUR_SYNONYMS.get(name, (name,))
    for table in (SCENES, SCENES_ALONE, STYLES, EFFECTS):
        for name, phrases in table.items():
            yield name
            yield from phrases
    yield from IDLE
    yield from GRAMMAR


def known_words() -> list[str]:
    """Every word that training captions use, sorted."""
    words = {word.strip(",.") for phrase in _phrases() for word in phrase.split()}
    return sorted(word for word in words if word and word != "{}")


def vocabulary() -> dict:
    """The machine-readable word list that ships with the model."""
    return {
        "objects": {thing.names[0]: {"synonyms": list(thing.names[1:]), "coloured": thing.tintable}
                    for thing in OBJECTS},
        "colours": [word for name in COLOUR_NAMES for word in COLOUR_SYNONYMS.get(name, (name,))],
        "scenes": {name: sorted({p.replace("{}", "<colour>") for p in phrases[1:]} |
                                set(SCENES_ALONE.get(name, ())))
                   for name, phrases in SCENES.items()},
        "styles": {**{name: list(words) for name, words in STYLES.items()},
                   **{name: list(words) for name, words in EFFECTS.items() if name != "none"}},
        "words": [word for word in known_words() if word not in GRAMMAR[-2:]],
    }


def sprite_list() -> dict[str, tuple[str, str]]:
    """File name -> (icon set, icon name), for sprites.mjs."""
    sprites = {}
    for thing in OBJECTS:
        sprites[f"{thing.names[0]}.cartoon"] = (thing.cartoon, thing.icon)
        sprites[f"{thing.names[0]}.3d"] = (SOLID, thing.icon)
    return sprites
