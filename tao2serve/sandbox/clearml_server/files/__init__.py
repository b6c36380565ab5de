"""The file server: uploads by multipart, downloads, deletion; nothing outside its folder."""
