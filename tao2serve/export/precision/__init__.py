"""The precision of an ONNX file: batch norm folded, float16, or int8 as Q/DQ pairs, and what it costs."""
