"""Detections in the layouts that other tools read: native, COCO, KITTI, Roboflow, FiftyOne.

What one picture becomes is a pure function of `PictureDetections`; documents that hold many pictures grow in a
spool, so that a folder of any length needs little memory.
"""

from __future__ import annotations

from tao2serve.formats.layouts import FORMATS, Format, Layout, layout_of
from tao2serve.formats.picture import PictureDetections

__all__ = ["FORMATS", "Format", "Layout", "PictureDetections", "layout_of"]
