"""A package of so many modules, about as long as asked for when they travel: for what forwards a program module by module.

Each module is imported by the one that a call names. Names and numbers are made up, from a fixed seed, so that the text gains from compression about
what a program's does.
"""
import os
import random

MODULES = 150
NAME = "forwarded_program"
# What zlib makes of it.
GAIN = 2.5


def module(source, length):
    """Source that has about so many bytes when compressed."""
    text = ""
    while len(text) < GAIN * length:
        name = "%s_%s" % (source.choice(WORDS), source.choice(WORDS))
        first, second = source.sample(WORDS, 2)
        text += "\n\ndef %s_%d(%s, %s=%d):\n    %r\n    if %s > %d:\n        return %s_%d(%s - %d, %s)\n    return [%s, %r]\n" % (
            name, source.randrange(10000), first, second, source.randrange(10**9),
            " ".join(source.choice(WORDS) for _ in range(8)), first, source.randrange(10**6), name, source.randrange(10000), first,
            source.randrange(1, 99), second, second, "%032x" % source.getrandbits(128))
    return text


def write(folder, length):
    """Writes it below a folder, with so many bytes in all when compressed."""
    source = random.Random(1)
    package = os.path.join(folder, NAME)
    os.makedirs(package)
    names = ["part%03d" % number for number in range(MODULES - 2)]
    texts = {"__init__": "", "start": "".join("from %s import %s\n" % (NAME, name) for name in names) + "\n\ndef nothing():\n    return None\n"}
    for name in names:
        texts[name] = module(source, length // len(names))
    for name, text in texts.items():
        with open(os.path.join(package, name + ".py"), "w") as f:
            f.write(text)


WORDS = """access account address agent amount answer archive attach balance batch before begin bucket buffer build cache call cancel
chain change channel check child clean client close cluster code command commit config connect context copy count create current data
date default delete depth detail device digest domain drain edge element empty encode entry error event export factor field file filter
final find flag flow folder format frame group handle hash header host image index input insert invoice item join journal key
label language layer length level library limit line link list load local lock lookup master match member merge message method module
money name network node notice number object offset option order origin output owner packet page parent parse part path pattern payload
period place plan policy port position prefix price process profile program prompt proxy queue range rate read record region release
remote repeat reply report request reserve resource result retry role root route rule sample scan schema scope search secret section
segment select send server session share shell signal size source split stage start state status storage store stream string table tag
target task test text thread ticket time title token total trace transfer tree type union unit update user value version view volume
wait watch window word worker write zone""".split()
