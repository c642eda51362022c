"""Okabe and Ito's colours, which stay apart for every common colour vision."""

BLUE, SKY, GREEN, RED = "#0072B2", "#56B4E9", "#009E73", "#D55E00"
ORANGE, PINK, GREY, BLACK = "#E69F00", "#CC79A7", "#8C8C8C", "#000000"
