"""The server: many voices at once from one model, over HTTP, WebSocket and Wyoming, and a page to try it.

`scheduler.py` runs the model for all clients, `service.py` turns what a client wants into work for it, and the rest
speaks the protocols. The package needs the extra `serve`, and imports nothing above `llasa.tts`.
"""
