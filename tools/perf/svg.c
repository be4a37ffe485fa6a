/* SPDX-License-Identifier: Apache-2.0 */
/*
 * svg.c: writes the elements of a plot, and the style sheet that they share; see
 * svg.h.
 *
 * Elements are collected in memory because the height of the document stands in front of them. All
 * colours are in the style sheet, twice: for pages that are light and for those that are dark. Series
 * have Okabe and Ito's palette, which people with any kind of colour vision can tell apart.
 */
#include "tools/perf/svg.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>

#define GLYPH 0.6 /* width of an average one, in heights; the widest of the usual fonts */

static const char STYLE[] =
    "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue','Noto Sans',Arial,"
    "sans-serif;font-size:12px;fill:#1f2328;font-variant-numeric:tabular-nums}\n"
    ".page{fill:#fff}.title{font-size:20px;font-weight:600}.head{font-size:14px;font-weight:600}\n"
    ".bold{font-weight:600}.small{font-size:11px}.mute{fill:#656d76}\n"
    ".grid{stroke:#e4e8ec;stroke-width:1}.faint{stroke:#eff2f5;stroke-width:1}"
    ".axis{stroke:#8c959f;stroke-width:1}.lead{stroke:#c4ccd4;stroke-width:1}\n"
    ".diag{stroke:#c4ccd4;stroke-width:1;stroke-dasharray:1 4;stroke-linecap:round}"
    ".mark{stroke:#1f2328;stroke-width:2}.spread{stroke:#1f2328;stroke-width:1.25}\n"
    ".line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}\n"
    ".d1{stroke-dasharray:7 5}.d2{stroke-dasharray:1.5 4.5}.d3{stroke-dasharray:9 4 1.5 4}\n"
    ".l0{stroke:#0072b2}.l1{stroke:#d55e00}.l2{stroke:#009e73}.l3{stroke:#b8558f}"
    ".l4{stroke:#c98200}.l5{stroke:#3d9bd1}.l6{stroke:#5b6470}.l7{stroke:#8a7500}\n"
    ".f0{fill:#0072b2}.f1{fill:#d55e00}.f2{fill:#009e73}.f3{fill:#b8558f}"
    ".f4{fill:#c98200}.f5{fill:#3d9bd1}.f6{fill:#5b6470}.f7{fill:#8a7500}\n"
    ".met{fill:#009e73}.missed{fill:#d55e00}.plain{fill:#0072b2}.absent{fill:#c4ccd4}"
    ".metx{fill:#00795a}.missedx{fill:#bf4f00}\n"
    "@media (prefers-color-scheme:dark){text{fill:#e6edf3}.page{fill:#0d1117}.mute{fill:#9198a1}"
    ".grid{stroke:#262c34}.faint{stroke:#1a2027}.axis{stroke:#6e7681}.lead{stroke:#3d444d}\n"
    ".diag{stroke:#484f58}.mark,.spread{stroke:#e6edf3}"
    ".l0{stroke:#4aa8e0}.l1{stroke:#f0883e}.l2{stroke:#2fc79b}.l3{stroke:#e08bbd}"
    ".l4{stroke:#e6a93a}.l5{stroke:#8fd0f7}.l6{stroke:#aab4c0}.l7{stroke:#cbb83c}\n"
    ".f0{fill:#4aa8e0}.f1{fill:#f0883e}.f2{fill:#2fc79b}.f3{fill:#e08bbd}"
    ".f4{fill:#e6a93a}.f5{fill:#8fd0f7}.f6{fill:#aab4c0}.f7{fill:#cbb83c}\n"
    ".met,.metx{fill:#2fc79b}.missed,.missedx{fill:#f0883e}.plain{fill:#4aa8e0}"
    ".absent{fill:#3d444d}}\n";

/* ---- Numbers and text ------------------------------------------------------------------------ */

static double bounded(double coordinate)
{
    return isfinite(coordinate) ? fmin(fmax(coordinate, -1e5), 1e5) : 0;
}

/* Escaped for content and attributes; XML has no place for control characters, however written. */
static void append_escaped(struct outbuf *out, const char *text)
{
    size_t length = strlen(text);
    bool is_utf8 = text_is_utf8(text, length);

    for (; *text; text++) {
        unsigned char byte = (unsigned char)*text;

        if (byte == '<')
            outbuf_text(out, "&lt;");
        else if (byte == '>')
            outbuf_text(out, "&gt;");
        else if (byte == '&')
            outbuf_text(out, "&amp;");
        else if (byte == '"')
            outbuf_text(out, "&quot;");
        else if (byte < 0x20 || byte == 0x7f || (byte >= 0x80 && !is_utf8))
            outbuf_byte(out, '?');
        else
            outbuf_byte(out, *text);
    }
}

static bool begins_point(char byte)
{
    return ((unsigned char)byte & 0xc0) != 0x80;
}

double svg_text_width(const char *text, double font_px)
{
    double points = 0;

    for (; *text; text++)
        points += begins_point(*text);
    return points * font_px * GLYPH;
}

size_t svg_break(const char *text, double width, double font_px)
{
    double left = width / (font_px * GLYPH);
    size_t end = 0;
    size_t blank = 0;

    for (; text[end]; end++) {
        if (begins_point(text[end]) && left-- < 1)
            break;
        if (text[end] == ' ')
            blank = end;
    }
    return text[end] && blank > 0 ? blank : strlen(text);
}

const char *svg_fit(const char *text, double width, double font_px, char ret_text[SVG_TEXT_BYTES])
{
    double left = floor(width / (font_px * GLYPH)) - 1; /* one place is the ellipsis' */
    size_t end = 0;

    if (svg_text_width(text, font_px) <= width) {
        (void)snprintf(ret_text, SVG_TEXT_BYTES, "%s", text);
        return ret_text;
    }
    for (; end < SVG_TEXT_BYTES - 8 && text[end]; end++) {
        if (begins_point(text[end]) && left-- < 1)
            break;
    }
    while (end > 0 && (text[end - 1] == ' ' || !begins_point(text[end])))
        end--;
    (void)snprintf(ret_text, SVG_TEXT_BYTES, "%.*s…", (int)end, text);
    return ret_text;
}

/* ---- Elements -------------------------------------------------------------------------------- */

void svg_text(struct svg *svg, double x, double y, enum svg_anchor anchor, const char *style,
              const char *format, ...)
{
    static const char *const ANCHORS[] = {"", " text-anchor=\"middle\"", " text-anchor=\"end\""};
    char text[512];
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    outbuf_printf(&svg->out, "<text x=\"%.1f\" y=\"%.1f\"%s class=\"%s\">", bounded(x), bounded(y),
                  ANCHORS[anchor], style);
    append_escaped(&svg->out, text);
    outbuf_text(&svg->out, "</text>\n");
}

void svg_line(struct svg *svg, double x1, double y1, double x2, double y2, const char *style)
{
    outbuf_printf(&svg->out,
                  "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" class=\"%s\"/>\n",
                  bounded(x1), bounded(y1), bounded(x2), bounded(y2), style);
}

void svg_rect(struct svg *svg, double x, double y, double width, double height, double radius,
              const char *style)
{
    outbuf_printf(&svg->out,
                  "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" rx=\"%.1f\" "
                  "class=\"%s\"/>\n",
                  bounded(x), bounded(y), fmax(bounded(width), 0), fmax(bounded(height), 0), radius,
                  style);
}

void svg_circle(struct svg *svg, double x, double y, double radius, const char *style)
{
    outbuf_printf(&svg->out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\" class=\"%s\"/>\n",
                  bounded(x), bounded(y), radius, style);
}

void svg_path_begin(struct svg *svg)
{
    outbuf_text(&svg->out, "<path d=\"");
}

void svg_path_to(struct svg *svg, double x, double y)
{
    bool first = svg->out.data[svg->out.length - 1] == '"';

    outbuf_printf(&svg->out, "%s%.1f %.1f", first ? "M" : "L", bounded(x), bounded(y));
}

void svg_path_end(struct svg *svg, const char *style, double opacity)
{
    outbuf_printf(&svg->out, "\" class=\"%s\" opacity=\"%.2f\"/>\n", style, bounded(opacity));
}

void svg_group_begin(struct svg *svg, const char *title)
{
    outbuf_text(&svg->out, "<g><title>");
    append_escaped(&svg->out, title);
    outbuf_text(&svg->out, "</title>\n");
}

void svg_group_end(struct svg *svg)
{
    outbuf_text(&svg->out, "</g>\n");
}

void svg_finish(struct svg *svg, const char *title, double height, FILE *file)
{
    struct outbuf head = {0};

    outbuf_printf(&head,
                  "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
                  "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" "
                  "viewBox=\"0 0 %.0f %.0f\" role=\"img\">\n<title>",
                  SVG_WIDTH, bounded(height), SVG_WIDTH, bounded(height));
    append_escaped(&head, title);
    outbuf_printf(&head, "</title>\n<style>\n%s</style>\n", STYLE);
    (void)fwrite(head.data, 1, head.length, file);
    fprintf(file, "<rect width=\"100%%\" height=\"100%%\" class=\"page\"/>\n");
    if (svg->out.length > 0)
        (void)fwrite(svg->out.data, 1, svg->out.length, file);
    fputs("</svg>\n", file);
    outbuf_free(&head);
    outbuf_free(&svg->out);
}
