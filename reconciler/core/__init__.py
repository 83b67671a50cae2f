"""The pure centre of the director: values in, values out, and no I/O."""
