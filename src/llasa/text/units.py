"""The words of currencies and units of measurement: what the signs, codes and short forms stand for."""

import re

CURRENCIES = {  # one, many, one hundredth, many hundredths
    "$": ("dollar", "dollars", "cent", "cents"), "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"), "¥": ("yen", "yen", "", ""), "₹": ("rupee", "rupees", "paisa", "paise"),
    "₽": ("rouble", "roubles", "kopek", "kopeks"), "₩": ("won", "won", "", ""), "₺": ("lira", "lira", "", ""),
    "₪": ("shekel", "shekels", "", ""), "₱": ("peso", "pesos", "", ""), "₫": ("dong", "dong", "", ""),
    "₦": ("naira", "naira", "", ""), "₴": ("hryvnia", "hryvnias", "", ""), "₿": ("bitcoin", "bitcoins", "", ""),
    "฿": ("baht", "baht", "", ""),
}  # fmt: skip
SIGNS = "".join(CURRENCIES)
# Codes of ISO 4217, but for those that are words or names of something else, such as TRY, ALL and PHP.
CURRENCIES |= {
    "USD": CURRENCIES["$"], "EUR": CURRENCIES["€"], "GBP": CURRENCIES["£"], "JPY": CURRENCIES["¥"],
    "INR": CURRENCIES["₹"], "RUB": CURRENCIES["₽"], "KRW": CURRENCIES["₩"], "ILS": CURRENCIES["₪"],
    "THB": CURRENCIES["฿"], "NGN": CURRENCIES["₦"], "UAH": CURRENCIES["₴"], "VND": CURRENCIES["₫"],
    "BTC": CURRENCIES["₿"], "CHF": ("Swiss franc", "Swiss francs", "centime", "centimes"),
    "CNY": ("yuan", "yuan", "", ""), "RMB": ("yuan", "yuan", "", ""),
    "SEK": ("Swedish krona", "Swedish kronor", "", ""),
    "NOK": ("Norwegian krone", "Norwegian kroner", "", ""), "DKK": ("Danish krone", "Danish kroner", "", ""),
    "PLN": ("zloty", "zlotys", "", ""), "CZK": ("Czech koruna", "Czech korunas", "", ""),
    "HUF": ("forint", "forints", "", ""), "BRL": ("real", "reais", "centavo", "centavos"),
    "MXN": ("Mexican peso", "Mexican pesos", "", ""), "ZAR": ("rand", "rand", "cent", "cents"),
    "AED": ("dirham", "dirhams", "", ""), "SAR": ("riyal", "riyals", "", ""),
} | {
    code: (f"{country} dollar", f"{country} dollars", "cent", "cents")
    for code, country in {
        "CAD": "Canadian", "AUD": "Australian", "NZD": "New Zealand", "HKD": "Hong Kong", "SGD": "Singapore",
    }.items()
}  # fmt: skip
CURRENCY = rf"(?:[{SIGNS}]|\b(?:{'|'.join(code for code in CURRENCIES if len(code) == 3)})\b)"
COUNTRIES = {"US": "U S", "A": "Australian", "AU": "Australian", "C": "Canadian", "CA": "Canadian",
             "HK": "Hong Kong", "NZ": "New Zealand"}  # fmt: skip
SCALES = {"k": "thousand", "m": "million", "mn": "million", "b": "billion", "bn": "billion", "t": "trillion",
          "tn": "trillion"}  # fmt: skip

UNITS = {  # one, many; case matters (mW is not MW)
    "km": ("kilometre", "kilometres"), "m": ("metre", "metres"), "cm": ("centimetre", "centimetres"),
    "mm": ("millimetre", "millimetres"), "mi": ("mile", "miles"), "ft": ("foot", "feet"), "yd": ("yard", "yards"),
    "kg": ("kilogram", "kilograms"), "g": ("gram", "grams"), "mg": ("milligram", "milligrams"),
    "lb": ("pound", "pounds"), "lbs": ("pound", "pounds"), "oz": ("ounce", "ounces"), "l": ("litre", "litres"),
    "L": ("litre", "litres"), "ml": ("millilitre", "millilitres"), "mL": ("millilitre", "millilitres"),
    "h": ("hour", "hours"), "hr": ("hour", "hours"), "hrs": ("hour", "hours"), "min": ("minute", "minutes"),
    "mins": ("minute", "minutes"), "s": ("second", "seconds"), "sec": ("second", "seconds"),
    "secs": ("second", "seconds"), "ms": ("millisecond", "milliseconds"), "Hz": ("hertz", "hertz"),
    "kHz": ("kilohertz", "kilohertz"), "MHz": ("megahertz", "megahertz"), "GHz": ("gigahertz", "gigahertz"),
    "kB": ("kilobyte", "kilobytes"), "KB": ("kilobyte", "kilobytes"), "MB": ("megabyte", "megabytes"),
    "GB": ("gigabyte", "gigabytes"), "TB": ("terabyte", "terabytes"), "W": ("watt", "watts"),
    "kW": ("kilowatt", "kilowatts"), "MW": ("megawatt", "megawatts"), "kWh": ("kilowatt hour", "kilowatt hours"),
    "V": ("volt", "volts"), "dB": ("decibel", "decibels"),
    "dBm": ("decibel milliwatt", "decibel milliwatts"), "kcal": ("kilocalorie", "kilocalories"),
    "mph": ("mile per hour", "miles per hour"), "kph": ("kilometre per hour", "kilometres per hour"),
    "km/h": ("kilometre per hour", "kilometres per hour"), "m/s": ("metre per second", "metres per second"),
    "m^2": ("square metre", "square metres"), "km^2": ("square kilometre", "square kilometres"),
    "cm^2": ("square centimetre", "square centimetres"), "ft^2": ("square foot", "square feet"),
    "m^3": ("cubic metre", "cubic metres"), "cm^3": ("cubic centimetre", "cubic centimetres"),
    "%": ("percent", "percent"), "kr": ("krone", "kroner"), "dL": ("decilitre", "decilitres"),
    "kN": ("kilonewton", "kilonewtons"), "zl": ("zloty", "zlotys"),
    "mmHg": ("millimetre of mercury", "millimetres of mercury"), "gal": ("gallon", "gallons"), "mol": ("mole", "moles"),
    "in^2": ("square inch", "square inches"), "yd^2": ("square yard", "square yards"),
    "mm^3": ("cubic millimetre", "cubic millimetres"), "km^3": ("cubic kilometre", "cubic kilometres"),
    "mi^3": ("cubic mile", "cubic miles"),
    "mi^2": ("square mile", "square miles"), "mm^2": ("square millimetre", "square millimetres"),
    "in^3": ("cubic inch", "cubic inches"), "ft^3": ("cubic foot", "cubic feet"), "yd^3": ("cubic yard", "cubic yards"),
    "°C": ("degree Celsius", "degrees Celsius"), "°F": ("degree Fahrenheit", "degrees Fahrenheit"),
    "m/s^2": ("metre per second squared", "metres per second squared"), "mpg": ("mile per gallon", "miles per gallon"),
    "kbps": ("kilobit per second", "kilobits per second"), "Mbps": ("megabit per second", "megabits per second"),
    "Gbps": ("gigabit per second", "gigabits per second"), "ohm": ("ohm", "ohms"), "kohm": ("kilohm", "kilohms"),
    "Mohm": ("megohm", "megohms"), "mA": ("milliamp", "milliamps"), "mV": ("millivolt", "millivolts"),
    "kV": ("kilovolt", "kilovolts"), "microm": ("micrometre", "micrometres"), "nm": ("nanometre", "nanometres"),
    "microg": ("microgram", "micrograms"), "micros": ("microsecond", "microseconds"),
    "atm": ("atmosphere", "atmospheres"), "kPa": ("kilopascal", "kilopascals"),
    "hPa": ("hectopascal", "hectopascals"), "kJ": ("kilojoule", "kilojoules"), "GW": ("gigawatt", "gigawatts"),
    "rpm": ("revolution per minute", "revolutions per minute"), "ppm": ("part per million", "parts per million"),
    "fps": ("frame per second", "frames per second"), "Ah": ("amp hour", "amp hours"),
    "mAh": ("milliamp hour", "milliamp hours"), "Wh": ("watt hour", "watt hours"),
    "MWh": ("megawatt hour", "megawatt hours"), "kVA": ("kilovolt amp", "kilovolt amps"),
    "microF": ("microfarad", "microfarads"), "nF": ("nanofarad", "nanofarads"), "pF": ("picofarad", "picofarads"),
    "mH": ("millihenry", "millihenries"), "microA": ("microamp", "microamps"), "microV": ("microvolt", "microvolts"),
    "microL": ("microlitre", "microlitres"), "microl": ("microlitre", "microlitres"),
    "cl": ("centilitre", "centilitres"), "THz": ("terahertz", "terahertz"), "PB": ("petabyte", "petabytes"),
    "KiB": ("kibibyte", "kibibytes"), "MiB": ("mebibyte", "mebibytes"), "GiB": ("gibibyte", "gibibytes"),
    "MB/s": ("megabyte per second", "megabytes per second"), "kbit/s": ("kilobit per second", "kilobits per second"),
    "Mbit/s": ("megabit per second", "megabits per second"), "Gbit/s": ("gigabit per second", "gigabits per second"),
    "Mb/s": ("megabit per second", "megabits per second"), "Gb/s": ("gigabit per second", "gigabits per second"),
    "MP": ("megapixel", "megapixels"), "px": ("pixel", "pixels"), "pt": ("point", "points"),
    "dpi": ("dot per inch", "dots per inch"), "ppi": ("pixel per inch", "pixels per inch"),
    "kgs": ("kilogram", "kilograms"), "kms": ("kilometre", "kilometres"), "ha": ("hectare", "hectares"),
    "yr": ("year", "years"), "yrs": ("year", "years"), "mo": ("month", "months"), "mos": ("month", "months"),
    "wk": ("week", "weeks"), "wks": ("week", "weeks"), "ns": ("nanosecond", "nanoseconds"),
    "Nm": ("newton metre", "newton metres"), "psi": ("pound per square inch", "pounds per square inch"),
    "MPa": ("megapascal", "megapascals"), "hp": ("horsepower", "horsepower"), "tbsp": ("tablespoon", "tablespoons"),
    "tsp": ("teaspoon", "teaspoons"), "qt": ("quart", "quarts"), "qts": ("quart", "quarts"),
    "bpm": ("beat per minute", "beats per minute"),
    "mcg": ("microgram", "micrograms"), "fl oz": ("fluid ounce", "fluid ounces"), "°": ("degree", "degrees"),
    "¢": ("cent", "cents"),
}  # fmt: skip
ATTACHED = {"p": ("penny", "pence"), "x": ("time", "times"), "k": ("thousand", "thousand")}  # never after a space
ANY_UNIT = "|".join(re.escape(unit) for unit in sorted(UNITS, key=len, reverse=True))
# What may stand after a slash: "$5/mo" is five dollars per month.
PER = {unit: names[0] for unit, names in UNITS.items() if unit[0].isalpha() and "/" not in unit} | {
    "d": "day", "wk": "week", "mo": "month", "yr": "year", "qtr": "quarter", "pp": "person", "ea": "each"
}  # fmt: skip
ANY_PER = "|".join(re.escape(unit) for unit in sorted(PER, key=len, reverse=True))
