"""Any transformers encoder with an MLM head as a denoiser; LoRA, checkpoints, import."""

from diffutron.model.checkpoint import Loaded, go_on_from, load_model, save_adapter, save_model
from diffutron.model.denoiser import Denoiser
from diffutron.model.lora import LoraSettings, add_lora, merge_lora

__all__ = ["Denoiser", "Loaded", "LoraSettings", "add_lora", "go_on_from", "load_model", "merge_lora", "save_adapter",
           "save_model"]  # fmt: skip
