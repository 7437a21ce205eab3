"""No test asks a network, nor draws anew each time: the libraries are told so before anything imports them."""

import os

from hypothesis import settings

for _name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
    os.environ[_name] = "1"

settings.register_profile("tests", derandomize=True, deadline=None)
settings.load_profile("tests")
