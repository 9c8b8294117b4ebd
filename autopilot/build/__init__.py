"""BUILD: run a recipe's steps through the content-addressed cache to an Artifact."""

from autopilot.build.recipe import build

__all__ = ["build"]
