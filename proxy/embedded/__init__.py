"""An OpenAI-compatible server around a language model that runs in this process.

The quick start and the tests mark the text of a real model without a download and without an
account: `load_model` (in `models`) gives the model, `create_app` (in `server`) the service.
"""
