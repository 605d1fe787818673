"""The things you fit."""
