"""A small video diffusion transformer of the project's own, which really generates.

Class-conditional moving digits, 8 frames of 16 x 16 pixels, 3D full attention over 8 x 8 x 8
tokens. Whole-model plans and integer attention are tested on it where no large model is at hand.
"""
