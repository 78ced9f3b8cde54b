// Squarified treemaps (Bruls, Huizing and van Wijk, 2000): rectangles of given areas, nearly square.

/**
 * Lay out positive `sizes`, largest first, inside {x, y, width, height}; one rectangle for each.
 */
export function squarified(sizes, { x, y, width, height }) {
  const all = sizes.reduce((sum, size) => sum + size, 0);
  const scale = all > 0 ? (width * height) / all : 0;
  const areas = sizes.map((size) => size * scale);
  const placed = [];
  let left = { x, y, width, height };
  let row = [];
  for (const area of areas) {
    const side = Math.min(left.width, left.height);
    if (row.length && worst([...row, area], side) > worst(row, side)) {
      left = place(row, left, placed);
      row = [];
    }
    row.push(area);
  }
  if (row.length) place(row, left, placed);
  return placed;
}

function worst(row, side) {
  const sum = row.reduce((total, area) => total + area, 0);
  return Math.max((side ** 2 * row[0]) / sum ** 2, sum ** 2 / (side ** 2 * row.at(-1)));
}

/** Put a row along the shorter side; returns what is left. */
function place(row, { x, y, width, height }, placed) {
  const sum = row.reduce((total, area) => total + area, 0);
  const isUpright = width >= height;
  const depth = sum / (isUpright ? height : width);
  let along = isUpright ? y : x;
  for (const area of row) {
    const length = depth > 0 ? area / depth : 0;
    placed.push(isUpright ? { x, y: along, width: depth, height: length } : { x: along, y, width: length, height: depth });
    along += length;
  }
  return isUpright ? { x: x + depth, y, width: width - depth, height } : { x, y: y + depth, width, height: height - depth };
}
