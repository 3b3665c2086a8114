"""Bars as SVG, made by hand: nothing to install, and the same bytes for the same figures."""

from html import escape

LABEL, BAR, VALUE, ROW, TOP = 260, 380, 190, 30, 44
OURS, OTHERS, WHISKER = "#1b7f5c", "#9aa5b1", "#3d4650"


def bars(title, rows, unit):
    """`rows`: name, value, worst, best (both may be None), and whether it is ours."""
    width, height = LABEL + BAR + VALUE, TOP + ROW * len(rows) + 12
    largest = max([value for _, value, *_ in rows] + [best or 0 for _, _, _, best, _ in rows]) or 1
    scale = BAR / largest
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="14" role="img" aria-label="{escape(title)}">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="26" font-weight="bold" fill="#1c2228">{escape(title)}</text>',
    ]
    for index, (name, value, worst, best, ours) in enumerate(rows):
        y = TOP + ROW * index
        middle = y + ROW / 2
        parts.append(f'<text x="{LABEL - 10}" y="{middle + 5:g}" text-anchor="end" fill="#1c2228">{escape(name)}</text>')
        length = max(1.0, value * scale)
        parts.append(
            f'<rect x="{LABEL}" y="{y + 5}" width="{length:.1f}" height="{ROW - 10}" fill="{OURS if ours else OTHERS}"/>'
        )
        end = length
        if worst is not None and best is not None:
            left, right = LABEL + worst * scale, LABEL + best * scale
            end = max(length, best * scale)
            for x1, y1, x2, y2 in (
                (left, middle, right, middle),
                (left, middle - 5, left, middle + 5),
                (right, middle - 5, right, middle + 5),
            ):
                parts.append(f'<line x1="{x1:.1f}" y1="{y1:g}" x2="{x2:.1f}" y2="{y2:g}" stroke="{WHISKER}" stroke-width="1.5"/>')
        parts.append(f'<text x="{LABEL + end + 8:.1f}" y="{middle + 5:g}" fill="#1c2228">{escape(number(value))} {escape(unit)}</text>')
    parts.append("</svg>\n")
    return "\n".join(parts)


def number(value):
    """Three digits that say something."""
    if value >= 1_000:
        digits = max(0, len(str(int(value))) - 3)
        return f"{round(value / 10**digits) * 10**digits:,}"
    return f"{value:.3g}"
