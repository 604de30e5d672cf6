/**
 * The words of the demo's small world. Each list is one grammatical slot; no word is in two lists, so the slot a
 * word fills says what it is, and the tokenizer's vocabulary is exactly these words.
 */

const words = (text: string): readonly string[] => text.trim().split(/\s+/);

/** People: the subjects of facts. */
export const NAMES = words(`
  Ada Alba Alma Amos Anton Ares Arlo Astrid Axel Basil Bela Bodil Boris Bruno Carla Cato Celia Clara Cleo Cora Cyrus
  Dagny Dario Della Dora Edda Edgar Edith Elias Elmer Elsa Emil Enzo Erik Esme Ewan Fanny Felix Fleur Floyd Freya
  Gerda Gideon Gilda Greta Gustav Hanna Hector Helga Henri Hilda Hugo Ida Igor Ilse Ines Ingrid Iris Ivan Jasper Joel
  Jonas Jules Juno Kaspar Katja Klara Knut Lars Leda Leon Lila Linus Livia Lorenz Lotte Ludo Luna Mabel Magnus Mara
  Margit Marius Matilda Mika Milo Mira Moritz Nadia Nell Nestor Nico Nils Nora Odile Olaf Olga Oscar Otto Pablo Paula
  Petra Piet Quentin Rafael Ragna Rhea Roland Rosa Rufus Ruth Sander Selma Signe Silas Simone Sven Tamar Tessa Theo
  Thora Tilda Tobias Ulla Ursula Vera Viktor Viola Walter Wanda Wilma Xenia Yara Yorick Yves Zelda Zeno
`);

/** Code words. */
export const CODE_WORDS = words(`
  acorn agate almond amber anchor anvil apple apricot arrow aspen atlas autumn badge bamboo banner barley basket
  beacon bellows birch biscuit blanket blossom bonnet bottle boulder bracelet bramble brandy brass breeze brick bridle
  bronze bucket buckle bugle button cabin candle canvas caramel cart cedar chalk charcoal cherry chestnut chimney cider
  cinder cinnamon clay clover cobalt coconut comet coral cork cotton cradle crayon crimson crystal cypress dagger daisy
  diamond drum dune dynamo ebony eclipse elder ember emerald enamel falcon feather fern ferry fiddle flannel flask
  flint flute forge fountain galaxy garlic garnet ginger glacier globe goblet granite gravel guitar hammer hammock
  harp hazel heather helmet hickory honey horizon indigo iron island ivory jade jasmine jelly jigsaw jungle juniper
  kettle kite lagoon lantern lavender leather lemon lilac linen locket lotus magnet mahogany mango maple marble meadow
  medal melon meteor mint mirror mitten molasses monsoon mosaic mustard myrtle nectar needle nickel nutmeg oasis ocean
  olive onyx opal orchid oyster paddle pancake paper parasol pearl pebble pepper petal pewter pickle pillow pine pistol
  planet plaster plum pocket polar poppy porcelain prism pumpkin purple quartz quill radish raisin raven ribbon ripple
  rocket rosemary ruby saddle saffron sandal sapphire satin scarlet shadow silver slate sleet sparrow spice spindle
  sponge spruce starch stirrup sugar sulphur summer sunset tablet tango teapot thicket thimble thistle thunder timber
  topaz torch trumpet tulip tundra turnip twilight umber umbrella vanilla velvet violet volcano waffle walnut waltz
  whistle willow window winter zephyr zinc
`);

/** Places where people live. */
export const TOWNS = words(`
  Arden Ashby Avon Belmont Blyth Bodmin Brent Calder Camden Carlow Clifton Corby Cromer Dalton Darwen Deal Denby
  Dover Drayton Dunbar Egham Elgin Ely Epsom Exeter Falmouth Fleet Forfar Galway Girton Goole Hamble Harrow Hexham
  Hythe Ilford Jarrow Keswick Kirkby Lancing Ledbury Leith Ludlow Lydd Malvern Melrose Minster Nairn Newport Norwich
  Oakham Oban Otley Penrith Poole Ramsey Redcar Ripon Romsey Rye Selby Stirling Tenby Thirsk Tiverton Truro Upton
  Ventnor Wells Whitby Wick Yarm Yeovil
`);

/** Animals that people keep. */
export const ANIMALS = words(`
  badger beaver beetle bison buzzard camel canary cat cobra cockatoo cow crab crane cricket crow cuckoo deer dog donkey
  dove duck eagle eel ferret finch fox frog gecko goat goose hamster hare hawk hedgehog heron horse lamb lemur lizard
  llama lynx magpie mole moose moth mouse mule newt otter owl ox panda parrot peacock pelican penguin pigeon pony pug
  quail rabbit rat robin salmon seal sheep skunk snail snake spaniel squirrel stork swan tiger toad trout turtle viper
  weasel wolf wombat yak zebra
`);

/** Roles: the doers in the sentences between the facts. */
export const ROLES = words(`
  archer baker barber blacksmith brewer butcher captain carpenter clerk cobbler cook cooper dancer doctor draper farmer
  fisherman gardener glazier goldsmith guard hunter innkeeper jeweller judge keeper lawyer mason mayor merchant midwife
  miller miner monk musician nurse painter pedlar pilot poet porter potter priest ranger rider saddler sailor scholar
  sculptor shepherd singer smuggler soldier student surgeon tailor tanner teacher thatcher tinker vicar watchman weaver
  widow
`);

/** Adjectives of the doers. */
export const ADJECTIVES = words(`
  angry bold brave bright busy calm careful cheerful clever cold cruel curious eager elderly fair famous fierce foolish
  gentle grim happy haughty honest humble hungry idle jolly kind lame lazy lonely loyal lucky merry modest nervous noble
  old patient plain polite poor proud quiet rich rude sad shy silent simple sleepy solemn stern strange strong stubborn
  tall tired weary wild wise young
`);

/** Places where the doers go. */
export const SPOTS = words(`
  abbey alley arcade attic bakery barn bay bridge cabinet canal castle cave cellar chapel church cliff corner cottage
  courtyard creek crossroads dairy dock estate farm field ford forest garden gate grove hall harbour hill inn kitchen
  lake lane library lighthouse market marsh mill moor museum orchard palace park path pier pond port prairie prison quarry
  river road school shed shop shore square stable station street temple theatre tower tunnel valley village vineyard
  wall well wharf workshop yard
`);

/** Verbs of the doers' moves; each takes "to the" and a place. */
export const MOVES = words(`
  comes crawls creeps drives drifts flees gallops goes hastens hobbles hurries limps marches moves paces rides runs
  rushes sails slips sneaks steps strolls trots trudges turns walks wanders
`);

/** When: the first word of some sentences. */
export const TIMES = words(
  `afterwards again always daily early finally meanwhile often once seldom slowly sometimes soon suddenly then today tonight`,
);

/** Everything else the sentences are made of. */
export const GLUE = words(`. the to`);
