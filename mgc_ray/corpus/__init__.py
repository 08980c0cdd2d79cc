"""The built-in corpus: ten genres of music that the program composes and synthesises itself."""
