"""The worker: a pure machine that plans slots, the processes that are slots, the agent that joins a dispatcher.

Nothing is imported here: slots and their nursery import only the few modules that they need.
"""
