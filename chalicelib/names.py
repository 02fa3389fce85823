"""Names for notebooks that were given none."""

from __future__ import annotations

import secrets

_ADJECTIVES = (
    "amber bold brave bright brisk calm clear clever cosy crisp eager early easy fair fleet fond fresh gentle "
    "glad golden grand green happy humble jolly keen kind light lively lucky mellow merry mild neat nimble noble "
    "patient plain proud quick quiet rapid ready rosy sharp shiny silent silver sleepy smart snug soft solid spry "
    "steady still sunny swift tidy vivid warm wise witty young"
)
_NOUNS = (
    "acorn alder badger beacon birch bison brook cedar cloud comet coral crane delta dune eagle ember falcon fern "
    "finch fjord forest fox garden glade grove harbor hazel heron hill island ivy jay juniper lake lark lemur lily "
    "linden lynx maple marten meadow mesa moss oak orchid otter owl panda pebble pine planet plover pond poppy "
    "prairie quail rain raven reef river robin sage seal spruce star stone swan thrush tulip valley walrus willow wren"
)


def random_name() -> str:
    """An adjective and a noun, for example `quiet-otter`. Names need not be unique: the id is."""
    return f"{secrets.choice(_ADJECTIVES.split())}-{secrets.choice(_NOUNS.split())}"
