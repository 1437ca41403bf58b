"""Chat: templates rendered safely, the session that keeps a conversation, its commands, and the terminal."""
