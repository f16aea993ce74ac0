"""Models whose attention can be watched or replaced.

`pipeline` is their interface. `video` is the project's own transformer, `diffusers_adapter` opens
pipelines of diffusers. `models` opens and captures them (`names` says what is one), `replacement`
puts a planned attention in place of their own, and `generation` compares the two.
"""
