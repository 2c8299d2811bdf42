"""Two series of textbooks: air passengers and sunspots."""

from unroll.pipelines.datasets.series.darts_files import DartsFile


class AirPassengers(DartsFile, skip_registration=True):
    """Passengers of international airlines in thousands, 1949 to 1960: 100 / 16 / 28 months."""

    CITATION = "Box, Jenkins 1976, Time series analysis, series G"
    FOLDER = "small_series"
    NAME = "AirPassengers.csv"
    SHA256 = "5f8b316b84545d9cfb05612298df8415ce4c44421c7012d109465564b07ebc06"
    FREQUENCY = "MS"


class Sunspots(DartsFile, skip_registration=True):
    """Monthly means of the number of sunspots, 1749 to 1983: 1,973 / 283 / 563 months.

    Their cycle of about eleven years is not regular, and is not the season of the seasonal naive.
    """

    CITATION = "Andrews, Herzberg 1985, Data"
    FOLDER = "small_series"
    NAME = "monthly-sunspots.csv"
    SHA256 = "4b91dd8e13bdf6a95c3034c71ceca0152269986c6a91706c6eaf50c1d50081c8"
    FREQUENCY = "MS"
