"use strict";
// Inliers of a verified photo, of the report and of `ultron serve`: lines from the query to the photo, and the query's box where it lies in it.
// svg: lies over both images and takes no clicks; the places of `data` are thousandths of the images.
function drawInliers(svg, queryImage, photoImage, data) {
  const frame = svg.getBoundingClientRect(), shapes = [];
  svg.setAttribute("viewBox", `0 0 ${frame.width} ${frame.height}`);
  const shape = (tag, attributes, parent) => {
    const made = document.createElementNS(svg.namespaceURI, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (parent) parent.append(made); else shapes.push(made);
    return made;
  };
  // The picture inside an image element, which may be letterboxed.
  const placeOf = (image) => {
    const rect = image.getBoundingClientRect(), width = image.naturalWidth || image.width, height = image.naturalHeight || image.height;
    const scale = Math.min(rect.width / width, rect.height / height), [w, h] = [width * scale, height * scale];
    const [left, top] = [rect.left + (rect.width - w) / 2 - frame.left, rect.top + (rect.height - h) / 2 - frame.top];
    return { left, top, w, h, at: (x, y) => [left + x / 1000 * w, top + y / 1000 * h] };
  };
  const ofQuery = placeOf(queryImage), ofPhoto = placeOf(photoImage), round = (places) => places.map((value) => value.toFixed(1));
  for (const [qx, qy, px, py] of data.lines) {
    const [x1, y1] = round(ofQuery.at(qx, qy)), [x2, y2] = round(ofPhoto.at(px, py));
    shape("line", { x1, y1, x2, y2, class: "inlier" });
    for (const [cx, cy] of [[x1, y1], [x2, y2]]) shape("circle", { cx, cy, r: 2.5, class: "inlier" });
  }
  if (data.box) {
    // Where it reaches out of the photo it is cut off.
    const { left, top, w, h } = ofPhoto, part = shape("svg", { x: left, y: top, width: w, height: h });
    const points = data.box.map(([x, y]) => round([x / 1000 * w, y / 1000 * h]).join(",")).join(" ");
    for (const name of ["warped under", "warped"]) shape("polygon", { points, class: name }, part);
  }
  svg.replaceChildren(...shapes);
}
const inliersText = (data) => `${data.counted} inliers count, ${data.inliers} of ${data.matches} matches`;
