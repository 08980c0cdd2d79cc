"""An ensemble behind HTTP, by Ray Serve, with a page to try it on."""
