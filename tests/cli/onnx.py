"""Runs an ONNX model on pixels: `onnx.py MODEL PIXELS HEIGHT WIDTH OUT`.

PIXELS are bytes (height, width, 3); OUT are the labels as bytes. Prints the model's metadata.
"""

import json
import sys

import numpy as np
import onnxruntime

model, pixels, height, width, out = sys.argv[1:]
height, width = int(height), int(width)
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
image = np.fromfile(pixels, np.uint8).reshape(1, height, width, 3)
labels, scores = session.run(["labels", "scores"], {"image": image})
assert labels.shape == (1, height, width), labels.shape
assert scores.shape[2:] == (-(-height // 4), -(-width // 4)), scores.shape
labels.astype(np.uint8).tofile(out)
print(json.dumps({"clusters": scores.shape[1], **session.get_modelmeta().custom_metadata_map}))
