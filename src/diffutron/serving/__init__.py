"""A model behind HTTP: OpenAI's protocol, what only diffusion can do, and a page. Needs ``diffutron[serve]``."""
