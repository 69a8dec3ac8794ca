"""Backbones: layers that map a batch of images to feature maps C2 to C5.

`resnet` has ResNet and ResNeXt, `application` any network of keras.applications.
"""
