"""Turkish as Unicode: normal form, dotted and dotless i. The only package that changes case."""

from diffutron.text.casing import lower_tr, upper_tr
from diffutron.text.normalise import normalise, normalise_part

__all__ = ["lower_tr", "normalise", "normalise_part", "upper_tr"]
