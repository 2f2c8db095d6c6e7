"""What travels between dispatcher and workers, and between a worker and its slots: messages, codec, handshake. Pure."""
