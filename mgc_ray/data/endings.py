"""What the endings of names of files say: what may be a song, and what is no audio.

Other endings say nothing; whether a file is a song is found out when it is decoded.
"""


def _set(*endings: str) -> frozenset[str]:
    return frozenset(f".{ending}" for line in endings for ending in line.split())


SONGS = _set(
    "aif aifc aiff au caf flac mp2 mp3 oga ogg opus rf64 snd w64 wav wave",  # by libsndfile
    "aac ac3 ape asf dsf m4a m4b mka mkv mov mp4 mpc ra rm tta webm wma wmv wv",  # by FFmpeg
    "npy",
)
NO_AUDIO = _set(
    "avif bmp gif jpeg jpg pdf png ps svg tif tiff webp",  # pictures
    "csv doc docx htm html lrc md nfo rtf srt txt tsv url xls xlsx xml",  # texts
    "accurip cue log m3u m3u8 md5 mid midi pls sfv sha1 sha256 xspf",  # beside music
    "cfg conf dat db ini js json lnk part py rar sqlite toml torrent vob yaml yml zip",
)
