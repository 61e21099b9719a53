"""A model folder written anew for the runtimes that people have. Read convert.py first.

ctranslate2_folder.py, ggml.py and onnx_graphs.py write a folder each; agreement.py hears clips with it in its runtime.
"""
