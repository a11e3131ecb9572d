"""Tickets in other people's tools: Hugging Face's Trainer, PEFT."""
