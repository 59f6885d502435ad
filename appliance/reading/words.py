"""Word lists of our own. Nothing is taken from a corpus."""

from __future__ import annotations

from typing import Final

FIRST_NAMES: Final = """Ada Adrian Agnes Ahmed Aiko Alba Alec Alice Amara Amir Ana Anders Andrea Anton Arjun Arne Astrid
Aya Beatrice Ben Bianca Boris Bruno Camille Carla Carlos Carmen Cecil Chloe Clara Conrad Cora Dario David Dalia Demir
Diana Dimitri Edgar Edith Elena Eli Elif Elsa Emil Emma Enzo Erik Esther Eva Fabian Farah Felix Fiona Flora Frank Frida
Gabriel Gemma George Gerda Gina Greta Hana Hannah Hans Harriet Hassan Hector Heidi Helen Henrik Hugo Ida Ines Ingrid
Irene Iris Isaac Ivan Jack Jana Jasper Jin Joan Jonas Jorge Judith Julia Kai Karim Karin Kenji Kira Klaus Lars Laura
Layla Lea Leo Lena Liam Lina Linus Livia Lorenzo Louis Lucia Luis Lydia Magda Malik Marco Maria Marta Martin Mateo Maya
Mei Mila Milan Mina Mira Nadia Naomi Nico Nina Noah Nora Odile Olaf Olga Oliver Omar Oscar Otto Pablo Paula Pavel Pedro
Petra Priya Quentin Rafael Rana Ravi Rita Robin Rosa Ruben Ruth Samir Sara Selma Silvia Simon Sofia Stella Sven Tamar
Tarek Teo Teresa Theo Thomas Tilda Tobias Tomas Ulla Uma Ursula Vera Victor Viola Walter Wanda Yara Yusuf Zara Zoe"""

LAST_NAMES: Final = """Abbott Adler Almeida Amos Ansari Archer Arnold Baker Banks Barros Bauer Becker Bell Berg Berger
Bishop Blom Bond Booth Brandt Brook Burke Calder Carver Castro Chan Chen Cole Conti Costa Cross Cruz Dahl Dale Davies Dean
Diaz Dixon Doyle Drake Duarte Duran Dyer Eder Egan Ekman Ellis Engel Esposito Evans Falk Farrell Faye Fischer Flint
Flores Ford Foster Fox Frey Friis Fuchs Garcia Gates Geller Gomez Grant Graves Gruber Haas Hale Hansen Harper Hart Hayes
Heller Hill Hoffman Holm Hooper Horn Hughes Hunt Ibsen Ito Jansen Jensen Jones Joshi Kaya Keller Kelly Khan Kim King
Klein Knight Koch Kovac Kraft Kramer Kumar Lam Lane Lang Larsen Lee Lehmann Lima Lind Lopez Lorenz Luna Lund Malone Marsh
Martin Mason Maurer Mendes Meyer Miller Mohr Molina Moore Moreno Mori Moser Nash Nielsen Nolan Novak Nunez Oakley Olsen
Ortiz Owen Palmer Park Parker Patel Perez Petrov Pike Pohl Porter Price Quinn Ramos Rao Reed Reyes Richter Rios Roberts
Romano Rossi Roth Rowe Russo Ryan Saito Salas Sato Schmidt Schubert Scott Shah Sharp Silva Simon Singh Sommer Stark Stein
Stone Storm Suzuki Tanaka Taylor Thorne Toth Turner Vance Vargas Vega Vogel Wagner Walsh Ward Watt Weber Wells West Wolf
Wong Wood Wright Yamada Young Zeller Ziegler Zimmer"""

PLACE_NOUNS: Final = """archive library museum gallery theatre market bakery pharmacy clinic hospital school college
nursery workshop garage warehouse depot station terminal harbour office canteen kitchen laboratory greenhouse chapel
castle stadium pool gym park garden shop studio cinema cafe restaurant hotel hostel bank laundry reception mill brewery
farm vineyard quarry observatory lighthouse tower bridge tunnel gate hall cellar courtyard pavilion annex"""

DEVICE_NOUNS: Final = """pump boiler valve generator turbine printer scanner server router switch camera sensor lift crane
oven furnace freezer compressor conveyor robot drill press lathe mixer heater fan filter battery charger inverter meter
telescope microscope antenna radio terminal projector thermostat alarm door lock locker cabinet safe tank reactor engine
tractor forklift van truck bus tram"""

EVENT_NOUNS: Final = """meeting workshop conference concert fair festival auction seminar lecture exam audit inspection
drill launch hearing interview rehearsal reception dinner ceremony parade race tournament course training review briefing
exhibition sale election excursion"""

DOCUMENT_NOUNS: Final = """contract report manual form invoice permit licence policy letter plan memo survey catalogue
certificate ledger inventory schedule budget notice agreement statement register guide protocol"""

PROJECT_WORDS: Final = """Amber Anchor Arrow Aspen Atlas Aurora Badger Beacon Birch Bluebird Canyon Cedar Cobalt Comet
Compass Copper Coral Crane Delta Domino Dragonfly Eagle Echo Ember Falcon Fern Flint Garnet Glacier Granite Harbor Hazel
Heron Horizon Indigo Iris Ivory Jade Juniper Kestrel Lantern Lark Laurel Lotus Magnet Maple Marble Meadow Meridian Mosaic
Nimbus Nova Oak Obsidian Ocean Onyx Orbit Orchid Osprey Otter Pebble Phoenix Pine Pioneer Prism Quartz Quill Raven Reef
River Robin Sable Saffron Sage Sapphire Sequoia Sierra Silver Sparrow Spruce Summit Sundial Swift Tempest Thistle Tiger
Topaz Tulip Tundra Vertex Violet Walnut Willow Wren Zenith Zephyr"""

ADJECTIVES: Final = """north south east west northern southern eastern western upper lower inner outer central main old
new little great small large long short red blue green white black grey silver golden royal public private municipal
national regional local annual monthly weekly first second third fourth fifth early late spring summer autumn winter
quiet hidden round square narrow wide spare backup portable mobile digital electric automatic manual temporary internal
external primary secondary historic modern"""

STREETS: Final = """Harrow Mill Station Church Park Bridge River Castle Market Garden Abbey Orchard King Queen Tower Forge
Chapel Linden Maple Hazel Elm Willow Granary Harbour Mason Tanner Weaver Miller Baker Potter Cooper Saddler"""

ORGANISATION_ENDINGS: Final = """Logistics Foods Energy Systems Partners Holdings Textiles Motors Instruments Labs Press
Media Robotics Shipping Dairy Paper Glass Steel Timber Optics Software Airlines Insurance Pharma Tools Ceramics"""

COLOURS: Final = (
    """red blue green yellow orange purple brown black white grey pink turquoise beige violet crimson"""
)
MATERIALS: Final = """oak steel glass copper brass marble granite concrete leather wool cotton silk linen bamboo paper
aluminium bronze clay plastic rubber ceramic titanium"""
WEEKDAYS: Final = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"
MONTHS: Final = "January February March April May June July August September October November December"
ANIMALS: Final = (
    "horse dog cat parrot goat donkey pony cow owl falcon tortoise rabbit llama otter seal wolf bear tiger"
)

# Attributes for `The … of … is …`, each with the kinds of value it can have.
ATTRIBUTES: Final = """
code, password, serial number, access code, reference, case number, order number, badge number, locker number,
part number, licence plate, booking reference, tracking number, call sign, identifier, customer number : code
owner, manager, director, author, inventor, supervisor, caretaker, founder, editor, contact, deputy, chair, architect,
inspector, sponsor, translator, driver, captain, tenant, buyer, seller, secretary, mentor, designer, guardian : person
height, length, width, depth, diameter, range, circumference, altitude : length
weight, maximum load, payload, mass : weight
price, cost, budget, fee, rent, deposit, value, salary, fine, debt, reserve price, turnover : money
capacity, population, page count, seat count, stock, attendance, membership, circulation, top speed, score, quota : count
temperature, melting point, operating temperature, boiling point, minimum temperature : temperature
share, discount, interest rate, tax rate, humidity, success rate, efficiency, margin, turnout : percent
duration, lead time, waiting time, warranty period, notice period, battery life, running time, lifetime : duration
deadline, start date, expiry date, delivery date, release date, birthday, due date, departure date, launch date : date
colour, background colour, trim colour : colour
material, main material, surface material : material
location, address, storage place, hiding place, meeting point, home port, headquarters, parking space : spot
origin, destination, birthplace, home town, twin town, registered seat : town
phone number, extension, hotline, fax number, emergency number : phone
version, firmware version, software version, revision : version
host name, domain, mirror : host
supplier, insurer, manufacturer, publisher, operator, employer, client, landlord : organisation
closing time, opening time, check-in time, boarding time, curfew, arrival time, shift start : time
"""

# For sentences that say nothing anybody would ask for.
NOUNS: Final = """air area arm art basket bench board boat body book bottle box branch brick brush bucket building bush
button cable candle card carpet ceiling chair chimney circle city cloud coast coat column corner corridor country crowd
cup curtain desk device dish dream dust edge envelope evening fence field floor flower forest fountain frame friend fruit
glass glove grass ground group hammer hand hat hedge hill hour house idea island jacket journey key lake lamp leaf lesson
letter light line list map meadow meal memory metal minute mirror moment moon morning mountain music needle neighbour
network night note number orchard page paint pair paper path pencil people phone picture pile pillow pipe place plant
plate pocket pond porch puddle question rain reason ribbon road rock roof room rope row sand sea shadow sheet shelf ship
shoe shore side sign sky smoke snow soap song sound spoon square stair star step stone story stream street string
student summer sun surface table teacher thing thread thought tile time tool towel town toy tree trip valley visitor
voice wall water wave way weather week wheel wind window winter wire wood word worker world yard year"""
VERBS: Final = """accept admire answer avoid bring build carry change check choose clean close collect compare count cover
cross describe discover discuss draw drop enjoy enter examine explain fill find fold follow forget gather give guard
handle hear help hide hold imagine improve keep know learn leave like lift like love make mark measure mend mention miss
move need notice open order paint pass pick place plan praise prefer prepare print protect pull push reach read receive
remember remove repair repeat replace return see sell send share show sort start store study support sweep take test
trust turn understand use visit wash watch welcome wrap"""
PLAIN_ADJECTIVES: Final = """beautiful bright broad broken busy calm careful cheap clean clear clever cold comfortable
common cool curious dark deep difficult dry dusty easy empty famous fine flat fresh friendly full gentle good happy heavy
honest huge important kind light lonely loud lovely low modest neat nice old ordinary patient plain pleasant polite proud
quick quiet rare ready rough rusty safe sharp shiny simple slow smooth soft special steep strange strong sturdy sweet tall
thick thin tidy tiny useful usual warm wet wild wise wooden young"""
MODIFIERS: Final = """exact present usual latest known given actual correct stated listed official real proper agreed final
original whole normal future planned"""
ADVERBS: Final = """often rarely usually sometimes always never slowly quickly quietly carefully gladly hardly mostly
again once twice together alone everywhere outside inside nearby early later"""
OPENINGS: Final = """In the morning|After lunch|On most days|As a rule|Some years ago|For a long time|At the weekend|In
general|By and large|According to the neighbours|During the winter|When it rains|At first|In the end|From time to time|
Every so often|As everybody knows|To be fair|On the other hand|Besides"""
STATEMENT_HEADS: Final = """since spring|every Sunday|each winter|for many months|last month|this week|next year|at the moment|by now|after all|in
fact|as we know|according to the list|this season|on paper|in our records|two weeks ago|at last|once again|as before|until
further notice|on weekdays|twice a year|most of the time|these weeks|of course|it is said that|we read that|everybody knows
that|the list says that|some time ago|not long ago|from now on|for the time being|each autumn|in those days|at first sight|that
spring|over the years|so far"""
STATEMENT_TAILS: Final = """as always|by now|since spring|for many months|according to the list|as agreed|without exception|as far as we know|at the
moment|to this day|as everybody can see|once more|so they say|as before|until further notice|of course|this season|in fact|this
time|as we were told"""
# How people lead up to a question, in training alone.
QUESTION_LEADS: Final = """tell me|tell me|say|can you say|I want to know|please say|could you tell me|let me know|I would like to hear|have
you read|is it known|any idea|just say|I wonder|I have to know|I forgot|what do they write about|what was it again,|my question
is|I need to know|help me see|it matters to me|somebody asked me|my friend asks|I never learned|remind me|explain to me|show
us|inform me|the question is|is it written|is there anything about|have you an idea|I cannot remember|I am not sure|we must hear|give
me|what I need is|I am looking for|a word on|please look for|try to say|quickly,|look:|in one sentence,|for my notes,|one
thing:|now to this:|what I would ask is"""
QUESTION_ASKING: Final = """can you|could you|would you|will you|please|would you please|I ask you to|now|kindly|try to|you should|it is time
to|do not forget to|can anybody|could somebody|I want you to|may I ask you to|be so good as to|are you able to|is it possible to|would
it be hard to"""
QUESTION_SAYING: Final = """say|show me|look up|work out|name|repeat|state|write|spell out|read out|answer|check|give me|find out|teach
me|report|point out|mention|make clear|write down|send me|describe|print|list|tell us"""
QUESTION_KNOWING: Final = """say|see|remember|mention|tell|explain|hear|guess|recall|read|show|learn|have|note|ask|find
out|understand|give|write|notice"""
