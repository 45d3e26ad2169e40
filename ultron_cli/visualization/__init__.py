"""Pictures of what a model does and of what was measured.

Three modules are the ground floor, on which every figure stands; they import no model and no torch:
- lettering.py is for text: fonts, what stands for characters that they lack, lines that fit.
- drawing.py is for figures of photos. A Sheet is white paper of so many pixels, on which photos are pasted as they are
  and text and signs are drawn; it is written as PNG, PDF or SVG. tiles.py scales, frames and labels photos for a sheet.
  Figures of this kind are in cam/ and ranked/, and inside/matching.py.
- plots.py is for figures with axes, by matplotlib. new_figure makes one with a sheet's header, legend_below_header adds
  the legend, save_figure dresses the axes and writes them; between them, axes are filled with the colours, dashes and
  marks of look() and the text sizes of that module. Figures of this kind are curves/, inside/, tsne.py, selectivity.py
  and genotype.py.

A function `..._figure` takes what is to be drawn and a path, and reads no stored result. scene.py opens a stored search
with its photos and ground truth, describers.py its model; the draw.py beside a figure makes it of a scene. report/ is a
web page of scenes.
"""
