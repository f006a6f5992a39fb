// What was dropped: files, and the files directly in folders, and those in a folder's additional_chat_templates.

const TEMPLATES = 'additional_chat_templates';

export async function droppedFiles(transfer: DataTransfer): Promise<File[]> {
  // The list is emptied once the event is over, so everything is taken from it before the first wait.
  const entries = [...transfer.items]
    .map((item) => item.webkitGetAsEntry())
    .filter((entry) => entry !== null);
  if (entries.length === 0) return [...transfer.files];
  const found = await Promise.all(entries.map((entry) => filesOf(entry)));
  return found.flat();
}

async function filesOf(entry: FileSystemEntry): Promise<File[]> {
  if (entry.isFile) return [await fileOf(entry as FileSystemFileEntry)];
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  const files: File[] = [];
  for (;;) {
    // A reader gives a hundred at a time, and an empty list at the end.
    const some = await new Promise<FileSystemEntry[]>((resolve, reject) =>
      reader.readEntries(resolve, reject),
    );
    if (some.length === 0) return files;
    for (const inner of some) {
      if (inner.isFile) files.push(await fileOf(inner as FileSystemFileEntry));
      else if (inner.name === TEMPLATES)
        files.push(...(await filesOf(inner)).map((file) => inFolder(file, inner)));
    }
  }
}

/** A dropped file has no path; with one, the package knows it for a named chat template. */
function inFolder(file: File, folder: FileSystemEntry): File {
  return Object.defineProperty(file, 'webkitRelativePath', {
    value: `${folder.fullPath.slice(1)}/${file.name}`,
  });
}

function fileOf(entry: FileSystemFileEntry): Promise<File> {
  return new Promise((resolve, reject) => entry.file(resolve, reject));
}
