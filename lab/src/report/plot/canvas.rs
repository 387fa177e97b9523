//! What all plots have in common: fonts, colours, the heading, and the way to a picture of points.

use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use plotters::{
    coord::Shift,
    prelude::*,
    style::{
        FontStyle, register_font,
        text_anchor::{HPos, Pos, VPos},
    },
};
use resvg::{
    tiny_skia::{Pixmap, Transform},
    usvg::{Options, Tree, fontdb},
};

pub type Area<'svg> = DrawingArea<SVGBackend<'svg>, Shift>;

pub const WIDTH: u32 = 960;
/// To the picture's edges.
pub const MARGIN: i32 = 24;
/// Points of a picture for each unit of the drawing, for screens of high density.
const SCALE: f32 = 2.0;

/// Verdana, which most machines without this font have, is as wide.
const FONT: &str = "DejaVu Sans, Verdana, sans-serif";
/// What plotters divides the size by.
const FONT_FACTOR: f64 = 1.24;

/// A colour that people with any kind of colour vision can tell from the others: those of Okabe and Ito, without the
/// yellow, which white swallows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colour(u8, u8, u8);

impl Colour {
    pub const TEXT: Self = Self(0x22, 0x22, 0x22);
    pub const FAINT: Self = Self(0x5a, 0x5a, 0x5a);
    pub const GRID: Self = Self(0xdd, 0xdd, 0xdd);
    pub const OTHERS: Self = Self(0xb3, 0xb3, 0xb3);

    pub fn rgb(self) -> RGBColor {
        RGBColor(self.0, self.1, self.2)
    }
}

const PALETTE: [Colour; 6] = [
    Colour(0x00, 0x72, 0xb2),
    Colour(0xe6, 0x9f, 0x00),
    Colour(0x00, 0x9e, 0x73),
    Colour(0xcc, 0x79, 0xa7),
    Colour(0x56, 0xb4, 0xe9),
    Colour(0xd5, 0x5e, 0x00),
];

/// The colour of the n-th of several.
pub fn colour(index: usize) -> Colour {
    PALETTE[index % PALETTE.len()]
}

/// A datapath has the same colour in every plot and report.
pub fn colour_of(datapath: &str) -> Colour {
    match datapath {
        "linux-bridge" => Colour(0x77, 0x77, 0x77),
        "tapbridge-xdp" => PALETTE[5],
        "tapbridge-tcx" => PALETTE[4],
        "macvtap" => PALETTE[2],
        // No plot has both.
        "ovs" | "floor-tcx" => PALETTE[3],
        "floor-xdp" => PALETTE[1],
        _ => PALETTE[0],
    }
}

/// What stands above a plot.
pub struct Heading {
    pub title: String,
    pub notes: Vec<String>,
}

impl Heading {
    pub fn height(&self) -> i32 {
        MARGIN + 34 + 19 * i32::try_from(self.lines().len()).unwrap_or(0)
    }

    /// The notes, in as many lines as they need.
    fn lines(&self) -> Vec<String> {
        let room = WIDTH.cast_signed() - 2 * MARGIN;
        let notes = self.notes.iter();
        notes.flat_map(|note| wrap(note, &small(), room)).collect()
    }

    pub fn draw(&self, area: &Area) -> Result<()> {
        area.draw_text(
            &self.title,
            &text(21, FontStyle::Bold, Colour::TEXT),
            (MARGIN, MARGIN),
        )?;
        for (line, note) in (0..).zip(self.lines()) {
            let style = text(13, FontStyle::Normal, Colour::FAINT);
            area.draw_text(&note, &style, (MARGIN, MARGIN + 34 + 19 * line))?;
        }
        Ok(())
    }
}

/// Makes the fonts known that texts are measured and drawn with.
pub fn load_fonts() -> Result<()> {
    for (style, font) in [
        (FontStyle::Normal, dejavu::sans::regular()),
        (FontStyle::Bold, dejavu::sans::bold()),
    ] {
        register_font(FONT, style, font).map_err(|_| anyhow!("the font DejaVu Sans can't be read"))?;
    }
    Ok(())
}

/// Draws on a white area.
pub fn draw(height: i32, drawing: impl FnOnce(&Area) -> Result<()>) -> Result<String> {
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, (WIDTH, height.unsigned_abs())).into_drawing_area();
    area.fill(&WHITE)?;
    drawing(&area)?;
    area.present()?;
    drop(area);
    Ok(svg)
}

/// A style of text, its top left corner where it is drawn.
pub fn text(size: i32, style: FontStyle, colour: Colour) -> TextStyle<'static> {
    let font = FontDesc::new(FontFamily::Name(FONT), f64::from(size) * FONT_FACTOR, style);
    font.color(&colour.rgb())
}

/// A style of text with the height's middle where it is drawn, and this point of the width.
pub fn beside(style: &TextStyle<'static>, point: HPos) -> TextStyle<'static> {
    style.pos(Pos::new(point, VPos::Center))
}

/// How wide a text gets.
pub fn width(content: &str, style: &TextStyle) -> i32 {
    let size = style.font.layout_box(content).map(|(_, (right, _))| right);
    size.unwrap_or(0)
}

/// A text in lines that fit, which end between words. A word that is longer than a line has one of its own.
pub fn wrap(content: &str, style: &TextStyle, room: i32) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in content.split(' ') {
        match lines.last_mut() {
            Some(line) if width(&format!("{line} {word}"), style) <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.into()),
        }
    }
    lines
}

/// As much of a small text as fits.
pub fn fit(content: &str, room: i32) -> String {
    let style = small();
    let mut fitting = content.to_owned();
    while width(&fitting, &style) > room {
        fitting.truncate(fitting.trim_end_matches('…').len());
        fitting.pop();
        fitting.push('…');
    }
    fitting
}

/// What most texts have.
pub fn small() -> TextStyle<'static> {
    text(13, FontStyle::Normal, Colour::TEXT)
}

/// Where the entries of a legend lie from a corner, line by line, and how high they are together.
pub fn legend<'labels>(labels: impl Iterator<Item = &'labels str>, symbol: i32) -> (Vec<(i32, i32)>, i32) {
    const LINE: i32 = 24;
    let style = small();
    let (mut x, mut y, mut places) = (MARGIN, 0, Vec::new());
    for label in labels {
        let own = symbol + 8 + width(label, &style) + 26;
        if x > MARGIN && x + own > WIDTH.cast_signed() - MARGIN {
            (x, y) = (MARGIN, y + LINE);
        }
        places.push((x, y));
        x += own;
    }
    let height = if places.is_empty() { 0 } else { y + LINE };
    (places, height)
}

/// A drawing as a picture in PNG.
pub fn png(svg: &str) -> Result<Vec<u8>> {
    let mut fonts = fontdb::Database::new();
    for font in [dejavu::sans::regular(), dejavu::sans::bold()] {
        fonts.load_font_data(font.to_vec());
    }
    let options = Options {
        fontdb: Arc::new(fonts),
        ..Options::default()
    };
    let tree = Tree::from_str(svg, &options).context("reading the plot's own SVG")?;
    let size = tree
        .size()
        .to_int_size()
        .scale_by(SCALE)
        .context("an empty plot")?;
    let mut pixels = Pixmap::new(size.width(), size.height()).context("a plot larger than memory")?;
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixels.as_mut());
    pixels.encode_png().context("writing the plot as PNG")
}
