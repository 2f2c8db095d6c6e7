"""What pull and push share: a ROUTER on the dispatcher's side, a DEALER on the worker's. Not a plugin."""
